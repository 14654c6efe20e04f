"""The API's endpoints as tools of an MCP server, at `/gradio_api/mcp/`, where the package `mcp` is installed.

Gradio (6.31) makes the tools. What it does with their files does not fit this page, and is done here instead: it takes
any address as a file, but not a list of files, and it answers in Python's notation. Here a file is what was uploaded
to this page before (`POST /gradio_api/upload`, field `files`): the path that the upload gave, or its address; or a
small file in the request itself, as `data:` with base64. Answers are JSON.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import gradio.mcp
from files import KEEPER, WORK
from gradio.processing_utils import save_base64_to_cache
from request_filter import GRADIO, TOOL, address_of, as_tool, uploaded
from uploads import Refused

META = {"_type": "gradio.FileData"}
HOW = (
    "Given as an upload to this page (POST /gradio_api/upload, field `files`): the path in its answer, or that file's "
    "address here. A small file may stand here itself: data:video/mp4;base64,..."
)


class Tools(gradio.mcp.GradioMCPServer):
    """Gradio's tools with files as above."""

    def get_input_schema(
        self, tool_name: str, parameters: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Any], list[Any]]:
        """The schema of a tool's arguments, and where files stand in them, each `[name]`."""
        schema, positions = super().get_input_schema(tool_name, dict(parameters or {}))
        names = list(dict.fromkeys(position[0] for position in positions))
        for name in names:
            told = schema["properties"][name]
            said = " ".join(filter(None, [told.get("description"), HOW]))
            kind = {"type": "array", "items": {"type": "string"}} if told["type"] == "array" else {"type": "string"}
            schema["properties"][name] = {**kind, "description": said}
        return schema, [[name] for name in names]

    def convert_strings_to_filedata(self, value: Any, filedata_positions: list[Any]) -> Any:
        """The arguments with files as gradio's events take them.

        Raises:
            Refused: what stands for a file is none that was uploaded here.

        """
        found = dict(value)
        for (name,) in filedata_positions:
            if given := found.get(name):
                found[name] = [file_of(one) for one in given] if isinstance(given, list) else file_of(given)
            else:
                found.pop(name, None)
        return found

    def _prepare_tool_call_args(self, name: str, arguments: dict[str, Any]) -> tuple[Any, ...]:
        *rest, headers, function = super()._prepare_tool_call_args(name, arguments)
        request = self.mcp_server.request_context.request
        headers = {key: text for key, text in headers.items() if key.lower() != TOOL}
        return *rest, headers | {TOOL: as_tool(address_of(request.scope))}, function

    def _get_or_create_client(self) -> Any:
        client = super()._get_or_create_client()
        for endpoint in client.endpoints.values():
            endpoint.process_input_files = _as_they_are  # the files are here: they need no second upload
        return client

    async def _execute_tool_without_progress(self, job: Any) -> list[Any]:
        with _said():
            return list(await super()._execute_tool_without_progress(job))

    async def _execute_tool_with_progress(self, job: Any, progress_token: str | int) -> Any:
        with _said():
            return await super()._execute_tool_with_progress(job, progress_token)

    @staticmethod
    def pop_returned_state(components: Any, data: Any) -> list[Any]:
        """The answer alone: what the page keeps for itself beside it is dropped."""
        first = data[0] if data else None
        return [first[0] if isinstance(first, list | tuple) else first]

    def postprocess_output_data(self, data: Any, root_url: str) -> list[Any]:
        """Each value as JSON."""
        return [self.types.TextContent(type="text", text=json.dumps(one, ensure_ascii=False)) for one in data]


def _as_they_are(*data: Any) -> tuple[Any, ...]:
    return data


@contextmanager
def _said() -> Iterator[None]:
    """What the gate says to a call, in place of the status alone."""
    try:
        yield
    except gradio.mcp.httpx.HTTPStatusError as error:
        raise Refused(str(error.response.json().get("detail", "This call was refused."))) from None


def file_of(text: Any) -> dict[str, Any]:
    """A file that an argument names.

    Raises:
        Refused: it was not uploaded here.

    """
    if isinstance(text, str) and text.startswith("data:"):
        try:
            path = save_base64_to_cache(text, str(WORK))
        except (ValueError, binascii.Error, OSError):
            raise Refused("What follows `data:` is no file in base64.") from None
        KEEPER.hold([path])
        return {"path": path, "meta": META}
    path = str(text)
    _, mark, rest = unquote(urlsplit(path).path).partition(GRADIO + "file=")
    if not uploaded(found := rest if mark else path):
        raise Refused(
            "Files are taken by upload only: POST them to /gradio_api/upload and name the path you are given."
        )
    return {"path": found, "meta": META}


def install() -> None:
    """Let gradio make these tools; to be called before the page is launched."""
    gradio.mcp.GradioMCPServer = Tools

"""The Hugging Face Hub's errors in one sentence of ours, and its rules for names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jwb_dh_v1.errors import DataNotFound, SetupError


def hub_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """The errors of something that is not on the Hub, may not be read, or cannot be reached; and `others`.

    What is missing, private or gated is an HfHubHTTPError or (from `datasets`, or without a network and a cached copy)
    a FileNotFoundError; no network at all is a ConnectionError; what breaks off later is an error of the HTTP library,
    which depends on the version of huggingface_hub.
    """
    import huggingface_hub.utils
    from huggingface_hub.errors import HfHubHTTPError

    transport = getattr(huggingface_hub.utils, "httpx", None)
    broken = () if transport is None else (transport.RequestError,)
    return (FileNotFoundError, ConnectionError, HfHubHTTPError, *broken, *others)


def reason(error: BaseException) -> str:
    """An error's first line without the full stop at its end, or its type if it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@contextmanager
def writing_to(repo_id: str) -> Iterator[None]:
    """Errors of writing to a repository as ours.

    Raises:
        SetupError: the Hub refused.
        DataNotFound: it cannot be reached.

    """
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        raise SetupError(f"{repo_id}: {reason(error)}. Log in with a token that may write: `hf auth login`.") from error
    except hub_errors(OSError) as error:
        raise DataNotFound(f"The Hub cannot be reached: {error}. Run the same command again to resume.") from error


def check_repo_id(repo_id: str, what: str) -> None:
    """Refuse a name of a repository that the Hub does not take.

    Args:
        repo_id: OWNER/NAME.
        what: what the error calls it: "'a b' is no owner on the Hub".

    Raises:
        SetupError: the Hub's own reason.

    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise SetupError(f"{what}: {error}") from None

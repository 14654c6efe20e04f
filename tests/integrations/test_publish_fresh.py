"""Every Space as its visitors meet it: started in a new environment from its own requirements, asked one real thing.

All is as on the Hub: the folder that `jwb-dh publish` puts together, pip and its `requirements.txt` alone, the Hub's
variables, nothing of this checkout, and no weights: the demo fetches them when it starts, the others when first asked.
`pytest --run-slow -rP` prints the seconds and sizes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jwb_dh_v1.integrations.publish import DEMO, METRICS, NAMES, assemble, write
from jwb_dh_v1.metrics import PROTOCOLS

ROOT = Path(__file__).parents[2]
LITE = PROTOCOLS["lite"].metrics
SEEDED = {"aesthetic_quality": ("clip-vit-l-14", "laion-aesthetic-l14"), "imaging_quality": ("musiq-spaq",)}
# What a visitor of these two is told: no small network computes them, and their own are here not to be had.
TOLD = {
    "aesthetic_quality": "The weights clip-vit-l-14, laion-aesthetic-l14 could not be fetched by this machine; "
    "try again later.",
    "imaging_quality": "standard/1 is not offered here: musiq-spaq stands under terms that its user must accept.",
}
CLOSED = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}  # nobody listens: publishers out of reach
DEMO_METRICS = ["ssim", "motion_smoothness", "csim"]
START = 900  # seconds; the demo fetches its weights before it listens
# What a script does with a published module and weights of its own, as the card says.
SCRIPT = """
import json, sys
import evaluate
asked = json.load(open(sys.argv[1]))
print(json.dumps(evaluate.load(asked.pop("module")).compute(**asked)))
"""
pytestmark = [pytest.mark.slow, pytest.mark.teaser, pytest.mark.timeout(3600)]


def size(folder: Path) -> str:
    """Of all files, in MB."""
    return f"{sum(path.lstat().st_size for path in folder.rglob('*') if path.is_file()) / 1e6:,.0f} MB"


def of_this_machine(*more: str) -> dict[str, str]:
    """Variables that say how this machine reaches the package index and how it counts, and nothing else."""
    kinds = ("PIP_", "OMP_", "MKL_", "OPENBLAS_", *more)
    return {name: value for name, value in os.environ.items() if name.startswith(kinds)} | {"PATH": os.environ["PATH"]}


# -------------------------------------------------------------------------------------------------------- environments


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The interpreter of a new environment with a Space's own requirements; one per list of requirements."""
    base = tmp_path_factory.mktemp("environments")

    @cache
    def made(requirements: bytes) -> Path:
        place = base / str(len(list(base.iterdir())))
        place.mkdir()
        (place / "requirements.txt").write_bytes(requirements)
        begun = time.monotonic()
        subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
        python = place / "venv" / "bin" / "python"
        pip = [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir"]
        how: Any = {"cwd": place, "env": of_this_machine() | {"HOME": str(place)}}
        subprocess.run([*pip, "-r", "requirements.txt"], check=True, **how)
        if subprocess.run([str(python), "-c", "import torchvision"], capture_output=True, **how).returncode:
            # Not on the Hub, whose torch and torchvision are of one build: here a CPU torch stands beside it.
            tool = ROOT / "tools" / "torchvision_cpu_ops"
            shutil.copytree(tool, place / "ops", ignore=shutil.ignore_patterns("build", "*.egg-info"))
            subprocess.run([*pip, str(place / "ops")], check=True, **how)
        print(f"environment: installed in {time.monotonic() - begun:.0f} s, {size(place / 'venv')}")
        return python

    yield made
    shutil.rmtree(base)  # gigabytes, which pytest would keep


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of fetched weights that the metric Spaces share; empty at first."""
    folder = tmp_path_factory.mktemp("weights")
    yield folder
    shutil.rmtree(folder)


@contextmanager
def started(name: str, python: Path, folder: Path, room: Path, more: Mapping[str, str]) -> Iterator[str]:
    """The address of a Space that runs from its folder, in an environment that knows nothing of this checkout."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **of_this_machine(),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(room),
        "HF_HOME": str(room / "hf"),
        "HF_HUB_OFFLINE": "1",
        "SYSTEM": "spaces",
        "SPACE_ID": f"acme/{name}",
        "SPACE_AUTHOR_NAME": "acme",
        "SPACE_REPO_NAME": name,
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        **more,
    }
    log = room / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen([python, "app.py"], cwd=folder, env=environment, stdout=out, stderr=out)
    try:
        until = time.monotonic() + START
        while process.poll() is None and time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        else:
            pytest.fail(f"The Space does not start: {log.read_text()[-3000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# ------------------------------------------------------------------------------------------------------------ requests


@pytest.fixture(scope="module")
def rows(teaser_dir: Path) -> dict[str, Any]:
    """Rows of the teaser by name."""
    from jwb_dh_v1 import load_dataset

    return {row["sample_id"]: row for row in load_dataset(str(teaser_dir), split="evaluation", streaming=True)}


@pytest.fixture(scope="module")
def clips(rows: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Path]]:
    """Twenty frames of two real people at half their size: blurred, and as they are."""
    from space_server import shorter

    folder = tmp_path_factory.mktemp("clips")
    sides = [
        [shorter(rows[name]["video"]["bytes"], folder / f"{name}-{blur}.mp4", blur) for name in ("obama-2", "pexels-1")]
        for blur in (1, 0)
    ]
    return sides[0], sides[1]


def core(clips: tuple[list[Path], list[Path]], metrics: list[str], regions: list[str], **how: Any) -> Any:
    """The core's result in this process, on clips and networks of its own."""
    from jwb_dh_v1 import Clip, Sample, score

    pairs = enumerate(zip(*clips, strict=True))
    return score([Sample(f"{n:06d}", Clip(a), Clip(b)) for n, (a, b) in pairs], metrics, regions, **how)  # type: ignore[arg-type]


def ask_about_videos(client: Any, name: str, clips: tuple[list[Path], list[Path]]) -> str:
    """With nothing chosen: the page begins with what it can compute. The core's number to the last bit."""
    from gradio_client import handle_file

    sides = {"predictions": clips[0], **({"references": clips[1]} if "reference" in LITE[name].needs else {})}
    found = client.predict(**{k: [handle_file(p) for p in side] for k, side in sides.items()}, api_name="/compute")
    region = LITE[name].regions[0]
    result = core(clips, [name], [region], protocol="lite")
    (cell,) = result.scores
    assert (found["protocol"], found["region"], found["n"]) == ("lite/1", region, 2)
    assert (found[name], found["networks"]) == (cell.value, cell.networks) and cell.value is not None
    assert [one["names"][0] for one in found["samples"]] == [path.name for path in clips[0]]
    assert [one["curve"] for one in found["samples"]] == [list(row.curve) for row in result.rows()]  # by frame
    return f"{found[name]!r}, the core's"


def ask_about_words(client: Any, row: dict[str, Any], room: Path) -> str:
    """A real person's speech against the transcript and two words more; and two texts."""
    from gradio_client import handle_file

    from jwb_dh_v1 import Clip, Sample, score

    said = f"{row['transcript']['text']} And more."
    video = room / "speech.mp4"
    video.write_bytes(row["video"]["bytes"])
    heard = client.predict(references=said, recordings=[handle_file(video)], api_name="/compute")
    (cell,) = score([Sample("000000", Clip(video), transcript=said)], ["wer"], protocol="lite").scores
    assert (heard["wer"], heard["asr"]) == (cell.value, "whisper-tiny.en") and cell.value is not None
    assert 0 < heard["wer"] < 0.5  # two words of ten were not said, and tiny.en mishears two
    line = "It was the best of times, it was the worst of times."
    texts = client.predict(references=line, predictions=line.replace("worst", "best"), api_name="/compute")
    assert texts["wer"] == 1 / 12  # one word of twelve
    return f"{heard['wer']!r}, the core's; texts {texts['wer']}"


def ask_about_a_log(client: Any, room: Path) -> str:
    """The log of a judge that heard four pairs of real speech, one of each pair dulled, in both orders."""
    import evaluate
    from gradio_client import handle_file
    from judge_server import JudgeServer

    from jwb_dh_v1.media.audio import Audio, decode_audio
    from jwb_dh_v1.networks.weights import resolve

    speech = decode_audio(resolve("two-cities"))
    assert speech is not None
    sharp, dull = [], []
    for number in range(4):
        part = speech.mono(16000)[number * 32000 : (number + 1) * 32000]
        smooth = np.convolve(part, np.ones(9) / 9, "same").astype(np.float32)
        for sound, paths, kind in ((part, sharp, "sharp"), (smooth, dull, "dull")):
            paths.append(str(room / f"{kind}{number}.wav"))
            Path(paths[-1]).write_bytes(Audio(sound[None], 16000).wav())
    module, log = evaluate.load(str(ROOT / "metrics" / "lalm_win_rate")), room / "log.jsonl"
    with JudgeServer() as server:
        kept = module.compute(
            predictions=[*sharp[:3], dull[3]], references=[*dull[:3], sharp[3]], texts=[f"Text {n}." for n in range(4)],
            log=log, judge="openai", model="audio-model", settings={"base_url": server.openai_url},
        )  # fmt: skip
    assert kept["lalm_win_rate"] == 0.75  # the judge of the tests prefers the brighter sound
    (judge,) = client.predict(log=handle_file(log), api_name="/compute")["judges"]
    (rate,) = judge["rates"]
    found = rate["rate"]["value"], rate["rate"]["low"], rate["rate"]["high"]
    assert found == (0.75, *kept["ci95"]) and (rate["wins"], rate["losses"]) == (6, 2)
    return f"{found[0]}, the module's"


def ask_for_missing_weights(client: Any, name: str, clips: tuple[list[Path], list[Path]]) -> str:
    """One sentence that names them."""
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError) as told:
        client.predict(predictions=[handle_file(clips[0][0])], api_name="/compute")
    assert str(told.value) == TOLD[name]
    return TOLD[name]


def ask_with_seeded_weights(python: Path, folder: Path, name: str, real: Path, room: Path) -> str:
    """What the Space's page cannot do its module can, with the user's own files: three frames, the core's number."""
    from goldens import seeded_file

    from jwb_dh_v1 import Clip
    from jwb_dh_v1.media.video import write_mp4

    video = room / "three.mp4"
    write_mp4(video, Clip(real).frames[:3], 12)
    files = {weight: seeded_file(weight, room) for weight in SEEDED[name]}
    how: dict[str, Any] = {"device": "cpu", "other_weights": True}
    asked = {
        "module": str(folder),
        "predictions": [str(video)],
        "weights": {w: str(p) for w, p in files.items()},
        **how,
    }
    (room / "asked.json").write_text(json.dumps(asked))
    environment = of_this_machine() | {
        "HOME": str(room), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", **CLOSED
    }  # fmt: skip
    done = subprocess.run(
        [python, "-c", SCRIPT, room / "asked.json"], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    (cell,) = core(([video], [video]), [name], ["body"], weights=files, **how).scores
    assert (found[name], found["networks"]) == (cell.value, cell.networks) and "own weights" in cell.networks
    return f"seeded weights in a script {found[name]!r}, the core's"


def ask_the_demo(client: Any, clips: tuple[list[Path], list[Path]]) -> str:
    """One pair, three metrics, two regions: the core's numbers."""
    from gradio_client import handle_file

    found = client.predict(
        video=handle_file(clips[0][0]), reference=handle_file(clips[1][0]), regions=["body", "face"],
        metrics=DEMO_METRICS, api_name="/score",
    )  # fmt: skip
    ours = core((clips[0][:1], clips[1][:1]), DEMO_METRICS, ["body", "face"], protocol="lite").scores
    values = {(cell.metric, cell.region): cell.value for cell in ours}
    assert {(one["metric"], one["region"]): one["value"] for one in found["scores"]} == values
    assert len(values) == 5 and None not in values.values()
    assert len(client.predict(api_name="/leaderboard")["data"]) == 8
    return f"{len(values)} numbers, the core's"


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_space_answers(
    name: str, environments: Any, weights: Path, rows: Any, clips: Any, tmp_path: Path
) -> None:
    from gradio_client import Client

    found = assemble(name, "acme", ROOT)
    assert not any(word in found.files["requirements.txt"].decode() for word in ("nvidia", "cuda", "triton", "+cu"))
    folder, room, empty = write(found, tmp_path / "spaces"), tmp_path / "room", tmp_path / "weights"
    room.mkdir()
    python = environments(found.files["requirements.txt"])
    fetched = weights if name in METRICS else empty
    begun = time.monotonic()
    more = {"JWB_CACHE": str(fetched), **(CLOSED if name in SEEDED else {"NO_PROXY": "127.0.0.1"})}
    with started(name, python, folder, room, more) as url:
        client = Client(url, verbose=False, httpx_kwargs={"timeout": 300})
        up = time.monotonic()
        if name == DEMO:
            said = ask_the_demo(client, clips)
        elif name in SEEDED:
            said = ask_for_missing_weights(client, name, clips)
        elif name == "wer":
            said = ask_about_words(client, rows["obama-2"], room)
        elif name == "lalm_win_rate":
            said = ask_about_a_log(client, room)
        else:
            said = ask_about_videos(client, name, clips)
        answered = time.monotonic()
        client.close()
    if name in SEEDED:
        said += "; " + ask_with_seeded_weights(python, folder, name, clips[1][0], room)
    code = "import jwb_dh_v1, sys; print(jwb_dh_v1.__file__)"
    own = subprocess.run([python, "-c", code], cwd=folder, env=of_this_machine(), capture_output=True, text=True).stdout
    assert own.startswith(str(folder)), "the Space runs its own copy of the package"
    print(f"{name}: up in {up - begun:.1f} s, answered in {answered - up:.1f} s ({said}); weights {size(fetched)}")
    shutil.rmtree(tmp_path)

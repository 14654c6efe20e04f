"""From checked files to a result: the core's `score`, with its networks kept between calls and an estimate of the time.

What runs on a GPU is one generator, `compute`; on ZeroGPU it runs in a process of its own, so that what it takes and
yields can be pickled.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import film as films
from uploads import BATCH_FRAMES, Refused

from jwb_dh_v1.analysis.wording import title
from jwb_dh_v1.errors import JwbError, MissingWeights, SetupError, WrongHash
from jwb_dh_v1.metrics import PROTOCOLS
from jwb_dh_v1.metrics.sample import Sample
from jwb_dh_v1.networks.pool import NetworkPool
from jwb_dh_v1.report.tables import remarks
from jwb_dh_v1.scoring.plan import make_plan, without_missing
from jwb_dh_v1.scoring.run import prepare
from jwb_dh_v1.scoring.run import run as run_plan

try:
    # ZeroGPU's package; elsewhere there is none (or, beside a checkout, the folder of that name), and nothing is done.
    from spaces import GPU

    on_gpu: Callable[[Any], Any] = GPU(duration=120)
except ImportError:

    def on_gpu(function: Any) -> Any:
        """The function as it is."""
        return function


Progress = Callable[..., Any]
FIRST_GUESS = 0.012  # seconds per frame and cell on two cores, until something was measured
_models: dict[Any, NetworkPool] = {}
_speed: dict[str, float] = {}


@dataclass(frozen=True)
class Offer:
    """A protocol as this machine can compute it.

    Attributes:
        metrics: those whose weights are here.
        why: what is missing, in a sentence; empty where nothing is.

    """

    metrics: tuple[str, ...]
    why: str = ""


@cache
def offers() -> dict[str, Offer]:
    """What each protocol can do here, by its short name; weights are looked for once."""
    found = {}
    for name, table in PROTOCOLS.items():
        plan = make_plan(name)
        try:
            left, lacking = without_missing(plan)
        except (MissingWeights, WrongHash):
            some = [metric for metric in table.metrics if not table.metrics[metric].weights]
            try:  # whole frames need no detector
                without_missing(make_plan(name, some, ["body"]))
            except JwbError:
                some = []
            usable = tuple(some) if name == "lite" else ()
            found[name] = Offer(usable, f"{table.name} is not offered here: the weights of its networks are missing.")
            continue
        why = f"Not offered here for want of weights: {', '.join(map(title, lacking))}." if lacking else ""
        complete = name == "lite" or not lacking  # a standard with holes would be taken for the standard
        if not complete:
            why = f"{table.name} is not offered here: {len(lacking)} of its {len(table.metrics)} metrics lack weights."
        found[name] = Offer(tuple(dict.fromkeys(m for m, _ in left.cells)) if complete else (), why)
    return found


def chosen(protocol: str, metrics: Sequence[str], regions: Sequence[str], samples: Sequence[Sample]) -> list[str]:
    """The metrics to compute: those named, or all that can be computed from what was given.

    Raises:
        Refused: the protocol is not offered, or a metric that was named cannot be computed.

    """
    offer = offers().get(protocol)
    if offer is None or not offer.metrics:
        raise Refused(offer.why if offer else f"There is no protocol {protocol[:40]!r}.")
    if not regions:
        raise Refused("Choose at least one region.")
    table = PROTOCOLS[protocol].metrics
    have = {
        "reference": any(sample.reference is not None for sample in samples),
        "transcript": any(sample.transcript for sample in samples),
    }
    for name in metrics:
        if name not in table:
            raise Refused(f"{PROTOCOLS[protocol].name} has no metric {name[:40]!r}.")
        if name not in offer.metrics:
            raise Refused(f"{title(name)} cannot be computed here: its weights are not on this machine.")
    possible = [m for m in metrics or offer.metrics if all(have[need] for need in table[m].needs)]
    if not possible:
        wants = " and ".join(sorted({need for m in metrics or offer.metrics for need in table[m].needs}))
        raise Refused(f"{', '.join(map(title, metrics or offer.metrics))} cannot be computed without a {wants}.")
    return possible


def left_out(protocol: str, metrics: Sequence[str], done: Sequence[str]) -> list[str]:
    """Sentences about metrics that were wanted and could not be computed from what was given."""
    table = PROTOCOLS[protocol].metrics
    lost: dict[str, list[str]] = {}
    for name in metrics or offers()[protocol].metrics:
        if name not in done:
            lost.setdefault(" and ".join(sorted(table[name].needs)), []).append(title(name))
    return [f"Not computed, because no {need} was given: {', '.join(names)}." for need, names in lost.items()]


@on_gpu
def compute(
    samples: Sequence[Sample],
    metrics: Sequence[str],
    regions: Sequence[str],
    protocol: str,
    out: Path,
    film: Path | None,
) -> Iterator[Any]:
    """Score samples in a thread, and say twice a second how far it is.

    Yields:
        numbers of finished samples, and at last a dict: `document` (`results.json` with rows and remarks), `seconds`
        by cell, and `film` (facts of the frames of the first sample, if a folder for them was given).

    """
    news: queue.Queue[Any] = queue.Queue()
    stopped = threading.Event()

    def on_sample(_: str) -> None:
        if stopped.is_set():
            raise SetupError("The visitor has left.")
        news.put(1)

    def run() -> None:
        try:
            news.put(_score(samples, metrics, regions, protocol, out, film, on_sample))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            news.put(error)

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    done = 0
    try:
        while True:
            try:
                found = news.get(timeout=0.5)
            except queue.Empty:
                yield done
                continue
            if isinstance(found, BaseException):
                raise found
            if isinstance(found, dict):
                yield found
                return
            done += 1
            yield done
    finally:
        stopped.set()
        worker.join()  # a job that goes on unseen would share the machine with the next one


def _score(
    samples: Sequence[Sample],
    metrics: Sequence[str],
    regions: Sequence[str],
    protocol: str,
    out: Path,
    film: Path | None,
    on_sample: Callable[[str], None],
) -> dict[str, Any]:
    prepared = prepare(protocol, metrics, regions)  # type: ignore[arg-type]
    key = (tuple(prepared.plan.weights), prepared.plan.boxes, prepared.plan.needs_keypoints)
    if key not in _models:
        _models[key] = prepared.plan.pool(prepared.paths)
    models = _models[key]
    name = samples[0].id if len(samples) == 1 else f"{len(samples)} clips"
    result = run_plan(prepared, samples, out, name=name, models=models, on_sample=on_sample)
    document = json.loads(result.to_json())
    document["samples"] = [plain(asdict(row)) for row in result.rows()]
    document["remarks"] = remarks([result])
    seconds = json.loads((out / "timings.json").read_text())["seconds"]
    drawn = None
    if film is not None:
        sample = samples[0]
        for clip in (sample.generated, sample.reference):
            if clip is not None:
                clip.models = models
        drawn = films.make_film(sample, result, film)
    return {"document": document, "seconds": seconds, "film": drawn}


def plain(value: Any) -> Any:
    """A value as JSON can hold it: no NaN (null), infinity as the string `inf`."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def run(
    samples: Sequence[Sample],
    metrics: Sequence[str],
    regions: Sequence[str],
    protocol: str,
    out: Path,
    film: Path | None,
    progress: Progress,
) -> dict[str, Any]:
    """Score samples and report how far it is and how long it will take; see `compute`."""
    wanted, metrics = metrics, chosen(protocol, metrics, regions, samples)
    frames = sum(len(sample.generated) for sample in samples)
    if frames > BATCH_FRAMES:
        raise Refused(f"The videos have {frames} frames in all; at most {BATCH_FRAMES} are scored at once.")
    cells = make_plan(protocol, metrics, regions).cells  # type: ignore[arg-type]
    expected = 0.5 + sum(frames * _speed.get(f"{m}/{r}", FIRST_GUESS) for m, r in cells)
    begun = time.monotonic()
    progress(0.0, desc="Scoring")
    for found in compute(samples, metrics, regions, protocol, out, film):
        if isinstance(found, dict):
            for cell, spent in found["seconds"].items():
                per_frame = spent / max(frames, 1)
                _speed[cell] = 0.5 * (_speed.get(cell, per_frame) + per_frame)
            found["document"]["remarks"] += left_out(protocol, wanted, metrics)
            return found
        progress(*_how_far(time.monotonic() - begun, expected, found, len(samples)))
    raise RuntimeError("compute ended without a result")


def _how_far(spent: float, expected: float, done: int, size: int) -> tuple[float, str]:
    """Share of the work and a sentence. Once some of several samples are done they tell better than the estimate."""
    if size > 1 and done:
        expected = spent * size / done
    share = min(0.97, max(done / size if size > 1 else 0.0, spent / expected))
    left = max(0.0, expected - spent)
    eta = f"about {left:.0f} s left" if left >= 1 else "nearly done"
    return share, f"Scoring, {eta}" if size == 1 else f"Scoring {done} of {size}, {eta}"

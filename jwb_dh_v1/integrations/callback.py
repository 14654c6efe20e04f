"""Scores in a training loop: a small fixed set under lite/1, in seconds, without disturbing the training.

`score_generated` is a plain function; `BenchmarkCallback` calls it from transformers' Trainer. A model under test is a
function from a `Prompt` to frames, a file or bytes, as for `jwb-dh generate`: what it returns is written as MP4 first,
so that the scores are those of `jwb-dh score` on the same clips.
"""

from __future__ import annotations

import math
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jwb_dh_v1.dataset.generate import Function, generate
from jwb_dh_v1.errors import MissingPackage, typed
from jwb_dh_v1.integrations.probe_set import CLIPS, Data
from jwb_dh_v1.integrations.probe_set import FixedSet as FixedSet  # both also imported from here
from jwb_dh_v1.integrations.probe_set import fixed_set as fixed_set
from jwb_dh_v1.media.clip import Clip
from jwb_dh_v1.metrics import protocol as table_of
from jwb_dh_v1.metrics.region import Region

if TYPE_CHECKING:
    from jwb_dh_v1.scoring.result import Result

# What needs no network. Seconds of one core for a clip of 64 frames at 640x360: writing and reading the file 0.55, SSIM
# 1.05, PSNR 0.25, dynamic degree 0.4. Dearer, by name: motion smoothness 0.75, subject consistency 1.1, FID 1.9.
CHEAP = ("ssim", "psnr", "dynamic_degree")
Log = Callable[[dict[str, float], int | None], object]


def score_generated(
    generate: Function,
    samples_or_data: Data,
    *,
    protocol: str = "lite",
    metrics: Sequence[str] | None = None,
    regions: Sequence[Region] = ("body",),
    step: int | None = None,
    log: Log | None = None,
    limit: int = CLIPS,
    seed: int | None = 0,
    model: Any = None,
    boxes: str | None = None,
    device: str = "auto",
) -> dict[str, float]:
    """Generate a small fixed set of clips and score it.

    The states of the random generators (Python, NumPy, torch with its devices) and the training mode of `model` are
    the same after the call as before, whatever happens in it. Nothing is kept on disk.

    Args:
        generate: the model under test, from a `Prompt` to its clip (`dataset.generate`); runs without gradients.
        samples_or_data: see `fixed_set`, whose result is taken as well.
        protocol: of the scores.
        metrics: names; by default those of `CHEAP` that the protocol has.
        regions: of body, face, hands. The body needs no boxes.
        step: handed to `log`.
        log: called with the scores and the step.
        limit: so many samples of the data.
        seed: of all random generators before the first clip, so that two steps differ by the model alone; None leaves
            them as they are.
        model: a torch module that is put in evaluation mode for the call.
        boxes: where they come from; by default the data's own where they have them, else the protocol's detector.
        device: of the networks; they are loaded once for a `FixedSet`.

    Returns:
        `jwb/<metric>_<region>` for each finite score; `jwb/failed` and `jwb/skipped`: clips of which a score is
        missing because something failed, or was not there to be measured; `jwb/seconds`.

    Raises:
        SetupError: weights or packages are not here, an unknown metric: nothing was scored.

    """
    begun = time.perf_counter()
    with _undisturbed(model, seed):
        chosen = fixed_set(samples_or_data, limit)
        names = tuple(metrics or (name for name in CHEAP if name in table_of(protocol).metrics))
        result = _scored(generate, chosen, protocol, names, tuple(regions), boxes, device)
    scores = {
        f"jwb/{score.metric}_{score.region}": float(score.value)
        for score in result.scores
        if score.value is not None and math.isfinite(score.value)
    }
    lost: dict[str, set[str]] = {"failed": set(), "skipped": set()}
    for name, status in zip(*(result.samples[key].to_pylist() for key in ("sample_id", "status")), strict=True):
        lost.get(status, set()).add(name)
    scores |= {f"jwb/{status}": float(len(names)) for status, names in lost.items()}
    scores["jwb/seconds"] = round(time.perf_counter() - begun, 3)
    if log is not None:
        log(dict(scores), step)
    return scores


def _scored(
    function: Function,
    chosen: FixedSet,
    protocol: str,
    metrics: tuple[str, ...],
    regions: tuple[Region, ...],
    boxes: str | None,
    device: str,
) -> Result:
    import torch

    from jwb_dh_v1.scoring.run import prepare, run

    if boxes is None and all(s.reference is not None and s.reference.provided_annotations for s in chosen.samples):
        boxes = "annotations"
    key = protocol, metrics, regions, boxes, device
    if key not in chosen.prepared:
        prepared = prepare(protocol, metrics, regions, boxes=boxes)
        chosen.prepared[key] = prepared, prepared.plan.pool(prepared.paths, device)
    prepared, models = chosen.prepared[key]
    with tempfile.TemporaryDirectory() as room:
        with torch.no_grad():
            made = generate(function, chosen.rows, room)
        if made.failures:
            first = made.failures[0]
            text = f"{len(made.failures)} of {len(chosen.rows)} clips were not made; {first.sample_id}: {first.message}"
            warnings.warn(text, stacklevel=3)
        samples = []
        for sample in chosen.samples:
            if sample.reference is not None:
                sample.reference.models = models
            # A clip that was not made is not there: its sample fails, and is counted.
            samples.append(replace(sample, generated=Clip(Path(room) / f"{sample.id}.mp4")))
        return run(prepared, samples, models=models, name="training")


@contextmanager
def _undisturbed(model: Any, seed: int | None) -> Iterator[None]:
    """Random generators and training modes as they were, on every way out."""
    import torch

    python, numbers, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    modes = [(part, part.training) for part in model.modules()] if model is not None else []
    try:
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed)  # the generators that a user's model may draw from
            torch.manual_seed(seed)
        if model is not None:
            model.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training
        random.setstate(python)
        np.random.set_state(numbers)
        torch.set_rng_state(tensors)
        if devices:
            torch.cuda.set_rng_state_all(devices)


def trackio_log(scores: dict[str, float], step: int | None) -> None:
    """Log to trackio's running experiment (`trackio.init` comes first).

    Raises:
        MissingPackage: trackio is not installed.

    """
    try:
        import trackio
    except ImportError:
        raise MissingPackage("log='trackio' needs the package trackio: pip install trackio.") from None
    trackio.log(scores, step=step)


@cache
def _callback_class() -> type:
    from transformers import TrainerCallback

    class BenchmarkCallback(TrainerCallback):  # type: ignore[misc]
        """Scores a fixed small set while a transformers Trainer trains.

        On every evaluation, or every `every` steps, the model under test makes the clips, and `jwb/<metric>_<region>`
        goes to the Trainer's loggers (`attach`), to trackio, or to any function. Clips that fail are counted in
        `jwb/failed`. Nothing that goes wrong here stops the training: an error is one warning with its type and place,
        and `jwb/errors` counts them. Only the process of rank 0 scores.

        Args:
            generate: the model under test, see `score_generated`. It closes over the model that is trained.
            data: see `fixed_set`; read once, at the beginning.
            every: steps from one scoring to the next; without it, the Trainer's evaluations.
            log: `trackio`, a function of scores and step, or None: `attach` sets the Trainer's own; without that the
                scores are only kept in `state.log_history` and `history`.
            limit, options: see `score_generated`.

        """

        def __init__(
            self,
            generate: Function,
            data: Data,
            *,
            every: int | None = None,
            log: Log | str | None = None,
            limit: int = CLIPS,
            **options: Any,
        ) -> None:
            self.generate, self.data, self.every, self.limit, self.options = generate, data, every, limit, options
            self.log: Log | None = trackio_log if log == "trackio" else log  # type: ignore[assignment]
            self.history: list[dict[str, float]] = []
            self.errors = 0
            self._last = -1

        def attach(self, trainer: Any) -> None:
            """Join a Trainer and log through it, to everything that it reports to."""
            self.log = lambda scores, step: trainer.log(scores)
            trainer.add_callback(self)

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Read the data, so that a missing folder is said before the first step."""
            if state.is_world_process_zero:
                self.data = fixed_set(self.data, self.limit)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Score every so many steps."""
            if self.every and state.global_step % self.every == 0:
                self._score(state, kwargs.get("model"))

        def on_evaluate(
            self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
        ) -> None:
            """Score with the Trainer's evaluation; the scores join its metrics."""
            if not self.every:
                scores = self._score(state, kwargs.get("model"))
                if metrics is not None:
                    metrics.update(scores)

        def _score(self, state: Any, model: Any) -> dict[str, float]:
            step = int(state.global_step)
            if not state.is_world_process_zero or step == self._last:
                return {}
            self._last = step
            scores: dict[str, float] = {}
            try:
                scores = score_generated(self.generate, self.data, model=model, limit=self.limit, **self.options)
            except Exception as error:  # noqa: BLE001 - a benchmark is no reason to lose a training
                self.errors += 1
                known = typed(error)
                warnings.warn(f"JWB-DH-V1 at step {step}: {type(known).__name__}: {known}", stacklevel=2)
            if self.errors:
                scores["jwb/errors"] = float(self.errors)
            self.history.append({**scores, "step": step})
            try:
                if self.log is not None:
                    self.log(dict(scores), step)
                else:
                    state.log_history.append({**scores, "step": step})
            except Exception as error:  # noqa: BLE001 - nor is a logger
                warnings.warn(f"JWB-DH-V1 could not log step {step}: {typed(error)}", stacklevel=2)
            return scores

    return BenchmarkCallback


def __getattr__(name: str) -> Any:
    if name == "BenchmarkCallback":  # built on first use, because transformers takes seconds to import
        return _callback_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

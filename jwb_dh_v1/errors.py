"""The three ways in which things go wrong, and what each one means for the run.

A `SetupError` stops the run before any work. A `SampleError` fails one sample and the run goes on. `NotApplicable`
skips one sample for one metric, and is counted beside the score. Nothing else is expected to be raised.
"""

from __future__ import annotations

import signal


class JwbError(Exception):
    """Base of all errors of this package; the message is one sentence that says what to do."""


class SetupError(JwbError):
    """The environment is not ready: weights, a package, a folder or the plan. Nothing has been scored."""


class MissingWeights(SetupError):
    """A weight or media file was found in none of its sources."""


class TermsNotAccepted(SetupError):
    """A file stands under terms (non-commercial use, an agreement) that were not accepted yet; it was not fetched."""


class WrongHash(SetupError):
    """A file's content is not what its sha256 promises; it was not used."""


class MissingPackage(SetupError):
    """An optional package is needed; the message names the extra to install."""


class PlanMismatch(SetupError):
    """The output folder holds results of another plan (other metrics, protocol, weights, data or version)."""


class AlreadyRunning(SetupError):
    """Another process is writing to the same output folder."""


class JudgeUnavailable(SetupError):
    """The judge cannot be asked at all: no key, or its model is unknown, retired or not allowed."""


class JudgeModelMismatch(SetupError):
    """Another model answered than the one that was asked for; its answer was not recorded as a score."""


class Stopped(JwbError):
    """A signal asked for an end; the shards that were begun are finished and written. Exit code: `128 + signal`."""

    def __init__(self, message: str, number: int = signal.SIGTERM) -> None:
        super().__init__(message, number)
        self.signal = int(number)

    def __str__(self) -> str:
        return str(self.args[0])


class DataNotFound(SetupError):
    """The dataset or the folder of generated clips is not there."""


class SampleError(JwbError):
    """One sample cannot be scored; its rows are `failed` and the others' numbers do not change."""


class Unreadable(SampleError):
    """The file cannot be opened: missing, a folder, no permission, a name too long or a loop of links."""


class NotAVideo(SampleError):
    """The file is no video that FFmpeg knows, or it holds no video stream."""


class Truncated(SampleError):
    """The file ends before the frames or the audio that its header promises."""


class NoFrames(SampleError):
    """The video stream holds no frame that can be decoded."""


class TooShort(SampleError):
    """The clip has fewer frames than the metric needs."""


class TooSmall(SampleError):
    """The frames are smaller than the metric's smallest window."""


class SizeMismatch(SampleError):
    """Generated and reference frames differ in size and the protocol does not resize."""


class LengthMismatch(SampleError):
    """Generated and reference clips differ so much in length or frame rate that frames cannot be paired."""


class VariableFrameRate(SampleError):
    """Frames are not evenly spaced in time, so that frames and motion cannot be compared by index."""


class BadAudio(SampleError):
    """The audio track cannot be decoded or holds NaN or infinite samples."""


class BadBox(SampleError):
    """A given box is no box: not finite, empty, or outside the picture."""


class NotFinite(SampleError):
    """A metric's value is NaN."""


class Unexpected(SampleError):
    """An error that no one foresaw: the message holds its type, text and place. Please report it."""


class NotApplicable(JwbError):
    """The metric has nothing to measure here (no face, no hands, no reference, no speech): skipped and counted."""

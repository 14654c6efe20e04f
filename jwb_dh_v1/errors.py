"""The three ways in which things go wrong, and what each one means for the run.

A `SetupError` stops the run before any work. A `SampleError` fails one sample and the run goes on. `NotApplicable`
skips one sample for one metric, and is counted beside the score. Nothing else is expected to be raised.
"""

from __future__ import annotations

import errno
import signal
from pathlib import Path


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


class NotWritable(SetupError, OSError):
    """A file of the output cannot be written: no room, no permission, a read-only or a lost disk. What was finished is
    whole; once there is room again, the same command goes on.
    """

    @classmethod
    def of(cls, path: Path, error: OSError) -> NotWritable:
        """The sentence for an error of the operating system."""
        return cls(f"{path} cannot be written: {error.strerror or error}; {ADVICE.get(error.errno or 0, STORAGE)}.")


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


STORAGE = "the storage fails, mend it"
ADVICE = (
    dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there")
    | dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable or choose another place")
    | dict.fromkeys((errno.ENOENT, errno.ESTALE), "the folder was removed or moved away")
    | dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP), "something else lies in its place")
)


class DataNotFound(SetupError):
    """The dataset or the folder of generated clips is not there."""


class SampleError(JwbError):
    """One sample cannot be scored; its rows are `failed` and the others' numbers do not change."""


class Unreadable(SampleError):
    """The file cannot be opened: missing, a folder, no permission, a name too long or a loop of links."""


class Disturbed(SampleError):
    """The file was there when the run began; when its turn came it was gone, another one, or could not be read. The
    same command scores it again.
    """


class NotAVideo(SampleError):
    """FFmpeg does not recognise the file as a video, or it holds no video stream."""


class Truncated(SampleError):
    """The file ends before the frames or the audio that its header promises."""


class DecoderHung(SampleError):
    """The process that decodes made no progress with this file for longer than the run waits; it was ended."""


class DecoderCrashed(SampleError):
    """The process that decodes was ended by this file, twice: a fault of the decoder, or too little memory."""


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


class VariableSize(SampleError):
    """The picture's size changes within the clip, or is not what the header says."""


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


def typed(error: Exception) -> JwbError:
    """The error as one of ours; what no one foresaw keeps its type, text and place."""
    if isinstance(error, JwbError):
        return error
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
    return Unexpected(f"{type(error).__name__}: {error} ({place})")

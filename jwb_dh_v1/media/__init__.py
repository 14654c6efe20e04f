"""One video: probed, decoded (in a process of its own), heard, annotated and written. Knows of no network or metric.

Example:
    >>> clip = Clip("generated/a.mp4")  # doctest: +SKIP
    >>> clip.size, clip.fps, len(clip)  # doctest: +SKIP
    >>> clip.frames[0]  # uint8 [H, W, 3] RGB  # doctest: +SKIP
    >>> write_mp4("a-again.mp4", clip.frames, clip.fps)  # doctest: +SKIP

"""

from jwb_dh_v1.media.annotations import Annotations as Annotations
from jwb_dh_v1.media.audio import Audio as Audio
from jwb_dh_v1.media.audio import decode_audio as decode_audio
from jwb_dh_v1.media.clip import Clip as Clip
from jwb_dh_v1.media.probe import VideoInfo as VideoInfo
from jwb_dh_v1.media.probe import probe as probe
from jwb_dh_v1.media.video import read_frames as read_frames
from jwb_dh_v1.media.video import write_mp4 as write_mp4

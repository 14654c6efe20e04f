"""A good answer, a tone, a question."""

import numpy as np

from jwb_dh_v1.judge.request import prepare
from jwb_dh_v1.judge.rubric import JWB_R1, prompt
from jwb_dh_v1.media.audio import Audio

GOOD = {
    "reasoning_1": "Clear until 2.1 s.",
    "reasoning_2": "Flat.",
    "comparison": "The first lives.",
    "score_1": 3,
    "score_2": 2,
    "winner": "1",
}


def sine(seconds=2.0, level=-20.0, rate=16000, frequency=997.0, channels=1):
    """A tone whose peak lies `level` dB below full scale."""
    t = np.arange(round(seconds * rate)) / rate
    wave_form = 10 ** (level / 20) * np.sin(2 * np.pi * frequency * t)
    return Audio(np.tile(wave_form.astype(np.float32), (channels, 1)), rate)


def question(text="Hello there.", language="en", category="general", rubric=JWB_R1):
    return prompt(text, language, category, prepare(sine()), prepare(sine(1.0, frequency=500)), rubric)

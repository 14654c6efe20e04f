"""Pairs of tones to rate."""

import numpy as np

from jwb_dh_v1.judge.people.study import RatingItem
from jwb_dh_v1.media.audio import Audio

HEADER = "item_id,system_a,system_b,order_shown,rater_id,choice"


def tone(frequency, seconds=0.3, rate=16000):
    t = np.arange(int(rate * seconds)) / rate
    return Audio((0.3 * np.sin(2 * np.pi * frequency * t))[None].astype(np.float32), rate)


def items_of(n, systems=("wav2lip", "omnihuman")):
    return [
        RatingItem(f"item-{i}", f"These are the words of {i}.", *systems, tone(300 + i).wav(), tone(600 + i).wav())
        for i in range(n)
    ]

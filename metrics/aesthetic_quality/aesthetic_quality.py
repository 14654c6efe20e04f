"""Aesthetic quality: how people would rate the frames' beauty, by LAION's head on CLIP."""

import jwb_dh_v1.integrations.hf as hf


class AestheticQuality(hf.Module):
    """VBench's aesthetic quality."""

    metric = "aesthetic_quality"

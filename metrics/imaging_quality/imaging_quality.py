"""Imaging quality: noise, blur and exposure of the frames, by MUSIQ trained on SPAQ."""

import jwb_dh_v1.integrations.hf as hf


class ImagingQuality(hf.Module):
    """VBench's imaging quality."""

    metric = "imaging_quality"

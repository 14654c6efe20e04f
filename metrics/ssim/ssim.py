"""SSIM of generated against real videos, on the whole frame, the face or the hands."""

import jwb_dh_v1.integrations.hf as hf


class SSIM(hf.Module):
    """Structural similarity."""

    metric = "ssim"

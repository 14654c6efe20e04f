"""PSNR of generated against real videos, on the whole frame, the face or the hands."""

import jwb_dh_v1.integrations.hf as hf


class PSNR(hf.Module):
    """Peak signal-to-noise ratio in dB."""

    metric = "psnr"

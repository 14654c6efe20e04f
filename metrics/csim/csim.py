"""CSIM: whether the generated person is the real one (lite), or looks alike pixel by pixel (paper)."""

import jwb_dh_v1.hf as hf


class CSIM(hf.Module):
    """Cosine similarity of faces."""

    metric = "csim"

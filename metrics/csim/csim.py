"""CSIM: whether the generated person is the real one (standard, lite); pixel likeness in paper."""

import jwb_dh_v1.integrations.hf as hf


class CSIM(hf.Module):
    """Cosine similarity of faces."""

    metric = "csim"

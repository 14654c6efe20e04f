"""Background consistency: how alike the centre square of each frame stays, by CLIP features."""

import jwb_dh_v1.integrations.hf as hf


class BackgroundConsistency(hf.Module):
    """VBench's background consistency."""

    metric = "background_consistency"

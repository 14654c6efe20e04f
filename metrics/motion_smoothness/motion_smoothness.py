"""Motion smoothness: how well every second frame is predicted from its two neighbours."""

import jwb_dh_v1.integrations.hf as hf


class MotionSmoothness(hf.Module):
    """VBench's motion smoothness."""

    metric = "motion_smoothness"

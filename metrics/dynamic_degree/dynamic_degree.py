"""Dynamic degree: the share of videos in which something moves much."""

import jwb_dh_v1.integrations.hf as hf


class DynamicDegree(hf.Module):
    """VBench's dynamic degree."""

    metric = "dynamic_degree"

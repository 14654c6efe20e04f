"""Subject consistency: how alike each frame is to the first and the one before it, by DINO features."""

import jwb_dh_v1.integrations.hf as hf


class SubjectConsistency(hf.Module):
    """VBench's subject consistency."""

    metric = "subject_consistency"

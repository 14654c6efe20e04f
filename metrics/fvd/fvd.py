"""FVD: how far the generated clips' distribution is from the real ones', by I3D's logits."""

import jwb_dh_v1.integrations.hf as hf


class FVD(hf.Module):
    """Fréchet video distance."""

    metric = "fvd"

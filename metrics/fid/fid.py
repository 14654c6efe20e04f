"""FID: how far the generated frames' distribution is from the real ones', by Inception features."""

import jwb_dh_v1.integrations.hf as hf


class FID(hf.Module):
    """Fréchet inception distance."""

    metric = "fid"

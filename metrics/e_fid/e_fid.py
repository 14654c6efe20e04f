"""E-FID: how far the generated faces' expressions are from the real ones', as sets (paper: of edges)."""

import jwb_dh_v1.integrations.hf as hf


class EFID(hf.Module):
    """Fréchet distance of facial expressions."""

    metric = "e_fid"

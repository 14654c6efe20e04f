"""WER: how many words of the generated speech a recogniser hears wrong, or of texts that were heard before."""

import jwb_dh_v1.integrations.hf_wer as hf


class WER(hf.WordErrorRate):
    """Word error rate."""

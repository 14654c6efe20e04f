"""LALM win rate: how often an audio language model finds the generated speech better than a baseline's."""

import jwb_dh_v1.integrations.hf_judge as hf


class LALMWinRate(hf.WinRateModule):
    """Win rate before a judge that hears."""

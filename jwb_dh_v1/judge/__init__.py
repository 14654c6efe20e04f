"""Pairwise judgement of speech, and the statistics that say how far it can be trusted."""

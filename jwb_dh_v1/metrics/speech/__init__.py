"""Metrics of what is said: whether the words can be understood."""

from jwb_dh_v1.metrics.speech.word_error_rate import word_errors

__all__ = ["word_errors"]

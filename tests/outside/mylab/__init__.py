"""Metrics of a lab of one's own."""

"""Metrics that look at the generated clip alone: is it steady, smooth, lively, beautiful, sharp?"""

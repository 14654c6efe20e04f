"""Architectures that no listed package provides, one file each."""

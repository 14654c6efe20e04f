"""The version of this package, part of every plan."""

__version__ = "0.1.0"

"""Statistics on arrays: intervals, tests, agreement between raters, fitted models."""

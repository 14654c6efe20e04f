"""One video: probed, decoded (in a process of its own), heard, annotated and written."""

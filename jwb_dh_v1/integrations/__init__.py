"""Ways in from other libraries: `evaluate` modules, training callbacks, Spaces."""

"""Networks: the table of weights, the pool that loads each once, and one file per network."""

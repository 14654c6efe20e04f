"""The dataset: schema, loading, pairing with generated videos, and the teaser."""

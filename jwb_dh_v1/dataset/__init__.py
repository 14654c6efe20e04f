"""The dataset: schema, loading, pairing with generated videos, checking, prompts and generation."""

"""Text to batches: vocabularies, sources, objectives, the token store and its loader. No JAX here."""

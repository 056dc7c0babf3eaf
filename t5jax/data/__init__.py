"""Text to batches: vocabularies, sources, objectives, the token store, its loader. No JAX."""

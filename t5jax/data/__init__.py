"""Text to batches: vocabularies, sources, objectives, the tokenised store, its loader. No JAX."""

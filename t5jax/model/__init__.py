"""The T5 family as readable modules; knows axes by name, nothing of meshes, data or training."""

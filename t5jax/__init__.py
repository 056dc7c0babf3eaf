"""t5jax: train, fine-tune and evaluate T5-family models in JAX on TPU and GPU meshes."""

__version__ = "0.1.0"

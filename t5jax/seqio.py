"""Every task and mixture of t5jax in seqio's registries, with the defaults of `register`.

    import seqio, t5jax.seqio

    seqio.get_mixture_or_task("glue_v002_proportional").get_dataset(
        {"inputs": 512, "targets": 84}, split="train"
    )

Importing this module registers; no file and no network is touched before a data set is asked for.
`t5jax.seqio_tasks.register` does the same with a vocabulary, folders and names of one's own.
"""

from t5jax.seqio_tasks import register

__all__ = ["register"]

register()

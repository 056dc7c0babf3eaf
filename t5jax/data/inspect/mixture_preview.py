"""A mixture looked at before a run: the sizes of its tasks, and its rates at every stage."""

import dataclasses
from collections.abc import Mapping

from t5jax.data.config import DataConfig
from t5jax.data.registry.names import find_definitions
from t5jax.data.registry.resolve import find_sizes, find_stages
from t5jax.data.tasks.mixture import Mixture, Stage


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MixturePreview:
    """`sizes` are training examples (documents, of plain text) of each task: of its store where
    there is one, else of the published data; None where neither is known. `stages` are the shares
    of the examples; () where they depend on sizes that are not known, those of `missing`."""

    mixture: Mixture
    sizes: Mapping[str, int | None]
    stages: tuple[Stage, ...]
    missing: tuple[str, ...] = ()


def preview_mixture(mixture: Mixture, data: DataConfig) -> MixturePreview:
    """Sizes and rates of a mixture, nested ones opened; what its tasks read need not be set.

    Raises ConfigError for a task that is not registered and for rates that cannot be.
    """
    definitions = find_definitions(dataclasses.replace(data, mixture=mixture.name))
    sizes = find_sizes(definitions.tasks, data)
    stages = find_stages(definitions, sizes)
    missing = () if stages else tuple(name for name, size in sizes.items() if size is None)
    return MixturePreview(mixture=mixture, sizes=sizes, stages=stages, missing=missing)

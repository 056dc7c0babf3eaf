"""Fine-tuning strategies: full, frozen parameters, adapters, LoRA, prompt tuning, unfreezing.

Parameters stay one nested dict in the state and in checkpoints. The trainable ones are a subtree of
it: only they have gradients and optimizer state. Paths are those of `model.layer_stack`, such as
`encoder/layers/mlp/wi_0`, which stands for all layers of the stack.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from t5jax.errors import ConfigError
from t5jax.model.config import T5Config
from t5jax.model.layer_stack import layer_shape, parameter_path, parameters_by_path, stack_of
from t5jax.types import Params

LORA_SUFFIX = "_lora"  # `query_lora` holds the LoRA factors of `query`


class _Strategy:
    """Base strategy: all parameters are trainable, none are added."""

    __slots__ = ()
    needs_pretrained = True
    has_merge = False  # adds parameters that `merge_parameters` merges into the model's
    starts_at_zero = False  # the model is the pretrained one until matrices have left zero

    def check(self, model: T5Config) -> None:
        """Raises ConfigError if the model lacks the strategy's parameters."""

    def check_parameters(self, params: Params) -> None:
        """Raises ConfigError if the strategy does not fit the model's (abstract) parameters."""

    def is_trainable(self, path: str) -> bool:
        return True

    def add_parameters(self, params: Params, key: jax.Array) -> Params:
        """The model's parameters with those that the strategy adds or initializes."""
        return params

    def add_parameter_specs(self, specs: Params) -> Params:
        """Partition specs of all parameters, from those of the model's."""
        return specs

    def merge_parameters(self, params: Params) -> Params:
        """The model's parameters with the added ones merged into them, if there are any."""
        return params

    def wrap_optimizer(
        self, tx: optax.GradientTransformation, num_train_steps: int
    ) -> optax.GradientTransformation:
        """The optimizer of the trainable parameters."""
        return tx


@dataclasses.dataclass(kw_only=True, slots=True)
class AllParameters(_Strategy):
    """All parameters are trained: pre-training, and T5's own fine-tuning."""

    needs_pretrained = False


@dataclasses.dataclass(kw_only=True, slots=True)
class TrainOnly(_Strategy):
    """Only parameters whose path matches a regular expression (`re.search`) are trained."""

    patterns: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_patterns("TrainOnly", self.patterns)

    def check_parameters(self, params: Params) -> None:
        _check_matches("TrainOnly", self.patterns, params)

    def is_trainable(self, path: str) -> bool:
        return _matches(self.patterns, path)


@dataclasses.dataclass(kw_only=True, slots=True)
class Freeze(_Strategy):
    """Parameters whose path matches a regular expression (`re.search`) are frozen."""

    patterns: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_patterns("Freeze", self.patterns)

    def check_parameters(self, params: Params) -> None:
        _check_matches("Freeze", self.patterns, params)
        if not any(map(self.is_trainable, _paths(params))):
            raise ConfigError(
                f"finetuning.patterns = {self.patterns}: Freeze would leave nothing to train"
            )

    def is_trainable(self, path: str) -> bool:
        return not _matches(self.patterns, path)


@dataclasses.dataclass(kw_only=True, slots=True)
class Adapters(_Strategy):
    """Adapter layers and all layer norms are trained (Raffel et al. 2020, section 3.5.1; Houlsby et
    al. 2019). `model.adapter_dim` is the width of the adapters; in the paper 32 to 2048."""

    starts_at_zero = True

    def check(self, model: T5Config) -> None:
        if not model.adapter_dim:
            raise ConfigError(
                "finetuning: Adapters, but model.adapter_dim = 0: set the adapters' width, e.g. 128"
            )

    def is_trainable(self, path: str) -> bool:
        return "/adapter/" in path or path.endswith("norm/scale")


@dataclasses.dataclass(kw_only=True, slots=True)
class PromptTuning(_Strategy):
    """Prompt tuning: `model.prompt_length` vectors in front of the encoder's input are trained
    (Lester et al. 2021). They are initialized, as in the paper, to rows of the token embedding,
    drawn from its first 5000."""

    def check(self, model: T5Config) -> None:
        if not model.prompt_length:
            raise ConfigError(
                "finetuning: PromptTuning, but model.prompt_length = 0: set the number of vectors, "
                "e.g. 100"
            )

    def is_trainable(self, path: str) -> bool:
        return path == "prompt"

    def add_parameters(self, params: Params, key: jax.Array) -> Params:
        table_VD, length = params["token_embedder"], params["prompt"].shape[0]
        # Not padding, EOS and unknown, which come first in T5's vocabularies.
        ids = jax.random.randint(key, (length,), 3, min(5000, table_VD.shape[0]))
        return params | {"prompt": table_VD[ids]}


@dataclasses.dataclass(kw_only=True, slots=True)
class LoRA(_Strategy):
    """LoRA (Hu et al. 2021): W + (alpha / rank) · A B in place of W; only A and B are trained.

    A is [in, rank], normal with variance 1 / in; B is [rank, out], initially 0; every layer of a
    stack has its own. The sum is computed on the parameters, before the model's forward pass. The
    patterns are regular expressions for the paths of the weights.
    """

    has_merge = True
    starts_at_zero = True
    rank: int = 8
    alpha: float = 16.0
    patterns: tuple[str, ...] = (r"attention/(query|value)$",)

    def __post_init__(self) -> None:
        _check_patterns("LoRA", self.patterns)
        if self.rank < 1:
            raise ConfigError(f"finetuning.rank = {self.rank}: must be at least 1")
        if not 0.0 < self.alpha < math.inf:
            raise ConfigError(f"finetuning.alpha = {self.alpha}: must be finite and above 0")

    def check_parameters(self, params: Params) -> None:
        _check_matches("LoRA", self.patterns, params)
        for path, shape in self._matching(params).items():
            if len(shape) != 2:
                raise ConfigError(
                    f"finetuning.patterns = {self.patterns} matches {path}, which is not a matrix: "
                    "LoRA is for matrices; name those"
                )
            if self.rank >= min(shape):
                raise ConfigError(
                    f"finetuning.rank = {self.rank}: {path} is {shape[0]} x {shape[1]}; a rank of "
                    f"{min(shape)} or more saves nothing"
                )

    def is_trainable(self, path: str) -> bool:
        return f"{LORA_SUFFIX}/" in path

    def add_parameters(self, params: Params, key: jax.Array) -> Params:
        numbers = {path: number for number, path in enumerate(self._matching(params))}

        def factors(path: str, weight: jax.Array) -> Params:
            *stack, inputs, outputs = weight.shape
            own = jax.random.fold_in(key, numbers[path])
            a = jax.random.normal(own, (*stack, inputs, self.rank)) * inputs**-0.5
            return {"a": a, "b": jnp.zeros((*stack, self.rank, outputs))}

        return self._with_factors(params, factors)

    def add_parameter_specs(self, specs: Params) -> Params:
        factors = lambda path, spec: {"a": P(*spec[:-1], None), "b": P(*spec[:-2], None, spec[-1])}
        return self._with_factors(specs, factors)

    def merge_parameters(self, params: Params) -> Params:
        result = {}
        for name, value in params.items():
            if name.endswith(LORA_SUFFIX):
                continue
            if isinstance(value, dict):
                value = self.merge_parameters(value)
            elif name + LORA_SUFFIX in params:
                a, b = params[name + LORA_SUFFIX]["a"], params[name + LORA_SUFFIX]["b"]
                # Highest precision: accelerators would round the factors.
                change = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
                value = value + (self.alpha / self.rank) * change
            result[name] = value
        return result

    def _matching(self, params: Params) -> dict[str, tuple[int, ...]]:
        """Path -> shape (of one layer) of the weights that match the patterns."""
        return {
            path: shape for path, shape in _layer_shapes(params) if _matches(self.patterns, path)
        }

    def _with_factors(self, tree: Params, factors: Callable, prefix: str = "") -> Params:
        """The tree with `factors(path, leaf)` beside every leaf that matches the patterns."""
        result = {}
        for name, value in tree.items():
            path = prefix + name
            if isinstance(value, dict):
                result[name] = self._with_factors(value, factors, f"{path}/")
                continue
            result[name] = value
            if _matches(self.patterns, path):
                result[name + LORA_SUFFIX] = factors(path, value)
        return result


@dataclasses.dataclass(kw_only=True, slots=True)
class GradualUnfreezing(_Strategy):
    """Gradual unfreezing of layers, from the top down (Raffel et al. 2020, section 3.5.1).

    The run is divided into equal episodes: 12 in the paper, whose stacks have 12 layers; None: as
    many as the deeper stack has layers. In episode n of E the top ⌈n L / E⌉ of a stack's L layers
    are trained, in encoder and decoder alike; token embedding, logits and final norms throughout, a
    position bias that layers share in the last episode (T5 keeps it in the lowest layer).

    A frozen layer is not updated, but the optimizer's moments follow its gradients, so that they
    are warm at its first update.
    """

    num_episodes: int | None = None

    def __post_init__(self) -> None:
        if self.num_episodes is not None and self.num_episodes < 1:
            raise ConfigError(f"finetuning.num_episodes = {self.num_episodes}: at least 1, or None")

    def wrap_optimizer(
        self, tx: optax.GradientTransformation, num_train_steps: int
    ) -> optax.GradientTransformation:
        if (self.num_episodes or 1) > num_train_steps:
            raise ConfigError(
                f"finetuning.num_episodes = {self.num_episodes}: the run has {num_train_steps} "
                "steps (train.num_train_steps)"
            )

        def init(params: optax.Params) -> GradualUnfreezingState:
            return GradualUnfreezingState(jnp.zeros((), jnp.int32))

        def update(updates: optax.Updates, state: Any, params: optax.Params | None = None):
            masked = self._masked(updates, state.count, num_train_steps)
            return masked, GradualUnfreezingState(state.count + 1)

        return optax.chain(tx, optax.GradientTransformation(init, update))

    def episode_starts(self, num_train_steps: int, num_layers: int) -> list[int]:
        """First update of every episode; `num_layers` is the depth of the deeper stack."""
        number = self.num_episodes or num_layers
        return [-(-episode * num_train_steps // number) for episode in range(number)]

    def _masked(self, updates: optax.Updates, count: jax.Array, num_train_steps: int) -> Any:
        leaves = parameters_by_path(updates).items()
        depths = [leaf.shape[0] for path, leaf in leaves if stack_of(path)]
        starts = self.episode_starts(num_train_steps, max(depths, default=1))
        number = len(starts)
        episode = jnp.sum(count >= jnp.array(starts)) - 1

        def mask(keys, update):
            path = parameter_path(keys)
            if stack_of(path):
                depth = update.shape[0]
                frozen = [depth - -(-n * depth // number) for n in range(1, number + 1)]
                trains_L = jnp.arange(depth) >= jnp.array(frozen)[episode]
                return jnp.where(trains_L.reshape(-1, *(1,) * (update.ndim - 1)), update, 0.0)
            if "/relpos_bias/" in path:  # shared by the layers of a stack
                return jnp.where(episode == number - 1, update, 0.0)
            return update

        return jax.tree_util.tree_map_with_path(mask, updates)


class GradualUnfreezingState(NamedTuple):
    """The number of updates, from which the episode follows."""

    count: jax.Array  # int32 scalar


Strategy = AllParameters | TrainOnly | Freeze | Adapters | GradualUnfreezing | LoRA | PromptTuning


def partition_params(
    params: Params, is_trainable: Callable[[str], bool], prefix: str = ""
) -> tuple[Params, Params]:
    """(subtree of trainable parameters, subtree of frozen ones)."""
    trained, frozen = {}, {}
    for name, value in params.items():
        path = prefix + name
        if isinstance(value, dict):
            parts = partition_params(value, is_trainable, f"{path}/")
            for side, part in zip((trained, frozen), parts, strict=True):
                side |= {name: part} if part else {}
        else:
            (trained if is_trainable(path) else frozen)[name] = value
    return trained, frozen


def merge_trees(one: Params, other: Params) -> Params:
    """Union of two trees; `other` wins where a path is in both."""
    merge = lambda a, b: merge_trees(a, b) if isinstance(a, dict) and isinstance(b, dict) else b
    return one | {name: merge(one.get(name), branch) for name, branch in other.items()}


def _layer_shapes(params: Params) -> list[tuple[str, tuple[int, ...]]]:
    """(path, shape of one layer) of every parameter, in order."""
    return [(path, layer_shape(path, x.shape)) for path, x in parameters_by_path(params).items()]


def _paths(params: Params) -> list[str]:
    return [path for path, _ in _layer_shapes(params)]


def _matches(patterns: tuple[str, ...], path: str) -> bool:
    return any(re.search(pattern, path) for pattern in patterns)


def _check_patterns(strategy: str, patterns: tuple[str, ...]) -> None:
    if not patterns:
        raise ConfigError(f"finetuning.patterns = (): {strategy} needs at least one")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"finetuning.patterns: {pattern!r} is not a regular expression: {error}"
            ) from error


def _check_matches(strategy: str, patterns: tuple[str, ...], params: Params) -> None:
    paths = _paths(params)
    for pattern in patterns:
        if not any(re.search(pattern, path) for path in paths):
            raise ConfigError(
                f"finetuning.patterns: {strategy}'s {pattern!r} matches none of the model's "
                f"parameters, which are {', '.join(paths)}"
            )

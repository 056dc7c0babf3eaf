"""Optimizers: a dataclass per optimizer, whose `build` makes the optax transformation.

Layers stacked along a leading axis are treated each as its own tensor wherever an optimizer works
with whole tensors (scales, clipping, factored moments). The learning rate is a function of the
optimizer's own update count, which a skipped step does not advance.
"""

import dataclasses
import difflib
import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import optax
import optax.contrib

from t5jax.errors import ConfigError, user_code
from t5jax.model.layer_stack import STACKS, parameter_path, stack_of
from t5jax.training.adafactor import EPSILON_PARAMETER, adafactor
from t5jax.training.schedules import Cosine, Rsqrt, Schedule, ScheduleFn, build_schedule


class _Optimizer:
    """What the optimizers here share: values are checked when they are set and, because a config
    may have changed them since, when the transformation is built."""

    __slots__ = ()
    learning_rate: float
    schedule: Schedule
    global_norm_clip: float | None

    def __post_init__(self):
        self.check()

    def check(self):
        """Raises ConfigError for a value out of range or one without effect."""
        raise NotImplementedError

    def build(self, num_train_steps: int) -> optax.GradientTransformation:
        """The transformation, float32 slots; raises ConfigError as the schedule does."""
        self.check()
        steps = self._steps(self.learning_rate_at(num_train_steps))
        if self.global_norm_clip is not None:
            steps = [optax.clip_by_global_norm(self.global_norm_clip), *steps]
        return steps[0] if len(steps) == 1 else optax.chain(*steps)

    def learning_rate_at(self, num_train_steps: int) -> ScheduleFn:
        return build_schedule(self.schedule, self.learning_rate, num_train_steps)

    def _steps(self, learning_rate: ScheduleFn) -> list[optax.GradientTransformation]:
        """The transformation after clipping."""
        raise NotImplementedError


@dataclasses.dataclass(kw_only=True, slots=True)
class Adafactor(_Optimizer):
    """T5's optimizer (module `adafactor` has the formula); the defaults are T5's pre-training.

    Fine-tuning: `learning_rate=1e-3, schedule=Constant()`. umT5 XXL: `beta1=0.9, factored=False,
    global_norm_clip=1.0`. Every update shrinks every parameter by the share
    `weight_decay · rate^weight_decay_exponent` (T5X's `weight_decay_rate` and
    `weight_decay_rate_lr_exponent`; T5X decays norm scales and bias tables too).
    `step_offset` is the count at which moments restored from another run start anew.
    """

    learning_rate: float = 1.0
    schedule: Schedule = dataclasses.field(default_factory=Rsqrt)
    beta1: float | None = None
    momentum_dtype: Literal["float32", "bfloat16"] = "float32"
    decay_rate: float = 0.8
    step_offset: int = 0
    clipping_threshold: float | None = 1.0
    factored: bool = True
    min_dim_size_to_factor: int = 128
    multiply_by_parameter_scale: bool = True
    weight_decay: float = 0.0
    weight_decay_exponent: float = 0.0
    global_norm_clip: float | None = None

    def check(self):
        """Raises ConfigError for a value out of range or one without effect."""
        _check_all(self)
        _require(
            self, "beta1", _or_none(lambda x: 0.0 < x < 1.0), "lie between 0 and 1, or be None"
        )
        _require(self, "decay_rate", lambda x: 0.0 < x <= 1.0, "lie in (0, 1]; T5 has 0.8")
        _require(self, "step_offset", lambda x: x >= 0, "be 0 or more")
        _require(self, "clipping_threshold", _or_none(_is_positive), "be above 0, or None")
        _require(self, "min_dim_size_to_factor", lambda x: x >= 1, "be 1 or more; T5 has 128")
        _require(self, "weight_decay", _is_rate, "be finite and 0 or more")
        _require(self, "weight_decay_exponent", _is_rate, "be finite and 0 or more")
        _require(
            self, "momentum_dtype", ("float32", "bfloat16").__contains__, "be float32 or bfloat16"
        )
        if self.beta1 is None and self.momentum_dtype != "float32":
            raise ConfigError(
                f"Adafactor.momentum_dtype is {self.momentum_dtype} but there is no momentum: "
                "set beta1, or leave momentum_dtype at float32"
            )
        if self.weight_decay_exponent and not self.weight_decay:
            raise ConfigError(
                f"Adafactor.weight_decay_exponent is {self.weight_decay_exponent} but weight_decay "
                "is 0: set weight_decay=1.0 for T5X's decay of learning_rate ** exponent"
            )

    def _steps(self, learning_rate: ScheduleFn) -> list[optax.GradientTransformation]:
        shared = ("learning_rate", "schedule", "global_norm_clip")
        names = [f.name for f in dataclasses.fields(self) if f.name not in shared]
        return [adafactor(learning_rate, **{name: getattr(self, name) for name in names})]


@dataclasses.dataclass(kw_only=True, slots=True)
class AdamW(_Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), as torch.optim.AdamW.

    `rms_scaled=True` multiplies the update of each tensor P, before weight decay, by
    max(RMS(P), 1e-3) as Adafactor does: nanoT5's `AdamWScale`. Its recipe is learning rate 2e-2,
    `schedules.Cosine` as described there, eps 1e-6, no weight decay, global_norm_clip 1.0; nanoT5
    adds eps to the root of the second moment before the bias correction, so during its first few
    hundred steps its eps is up to 32 times larger in effect.

    Weight decay spares norm scales and relative position biases, as nanoT5's does (its rule is by
    name, "layer_norm" and "bias"); it is `weight_decay · rate · P` without the RMS.
    """

    learning_rate: float = 1e-3
    schedule: Schedule = dataclasses.field(default_factory=Cosine)
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    rms_scaled: bool = False
    global_norm_clip: float | None = 1.0

    def check(self):
        """Raises ConfigError for a value out of range."""
        _check_all(self)
        _require(self, "beta1", lambda x: 0.0 <= x < 1.0, "lie in [0, 1)")
        _require(self, "beta2", lambda x: 0.0 <= x < 1.0, "lie in [0, 1)")
        _require(self, "eps", _is_positive, "be above 0")
        _require(self, "weight_decay", _is_rate, "be finite and 0 or more")

    def _steps(self, learning_rate: ScheduleFn) -> list[optax.GradientTransformation]:
        steps = [optax.scale_by_adam(self.beta1, self.beta2, self.eps)]
        if self.rms_scaled:
            steps.append(per_layer(optax.scale_by_param_block_rms(EPSILON_PARAMETER)))
        if self.weight_decay:
            steps.append(optax.add_decayed_weights(self.weight_decay, mask=_decay_mask))
        return [*steps, optax.scale_by_learning_rate(learning_rate)]


@dataclasses.dataclass(kw_only=True, slots=True)
class OptaxOptimizer(_Optimizer):
    """Any optimizer of optax and optax.contrib by name: `factory(schedule, **arguments)`.

    Arguments are numbers; a whole or boolean parameter of the factory (`nesterov`) is converted.
    A weight decay among them is optax's: it applies to every parameter.
    """

    factory: str = "optax.lion"
    learning_rate: float = 1e-4
    schedule: Schedule = dataclasses.field(default_factory=Cosine)
    arguments: dict[str, float] = dataclasses.field(default_factory=dict)
    global_norm_clip: float | None = None

    def check(self):
        """Raises ConfigError for an unknown optimizer or argument, with suggestions."""
        _check_all(self)
        _checked_arguments(_optax_factory(self.factory), self.factory, self.arguments)

    def _steps(self, learning_rate: ScheduleFn) -> list[optax.GradientTransformation]:
        factory = _optax_factory(self.factory)
        arguments = _checked_arguments(factory, self.factory, self.arguments)
        tx = factory(learning_rate, **arguments)
        return [per_layer(tx) if self.factory in _PER_TENSOR else tx]


@runtime_checkable
class CustomOptimizer(Protocol):
    """An optimizer of a user's module: a dataclass with these methods (docs/extending.md)."""

    def build(self, num_train_steps: int) -> optax.GradientTransformation:
        """The transformation, of parameters that are stacked: see `per_layer`. A slot that has the
        path and the shape of a parameter is sharded like it."""
        ...

    def learning_rate_at(self, num_train_steps: int) -> ScheduleFn:
        """The learning rate of each step, for the run's log."""
        ...


Optimizer = Adafactor | AdamW | OptaxOptimizer | CustomOptimizer


def build_transformation(
    optimizer: Optimizer, num_train_steps: int
) -> optax.GradientTransformation:
    """`optimizer.build`. What a user's optimizer raises, here or in a step, is a ConfigError that
    names it; so is anything but a transformation of optax."""
    with user_code(optimizer, "optimizer"):
        tx = optimizer.build(num_train_steps)
    name = type(optimizer).__qualname__
    if not (callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))):
        raise ConfigError(
            f"optimizer: {name}.build returned {type(tx).__name__}: an "
            "optax.GradientTransformation is expected"
        )
    if type(optimizer).__module__.startswith("t5jax."):
        return tx

    def init(params: optax.Params) -> optax.OptState:
        with user_code(optimizer, "optimizer"):
            return tx.init(params)

    def update(updates: optax.Updates, state: optax.OptState, params: Any = None, **extra: Any):
        with user_code(optimizer, "optimizer"):
            return tx.update(updates, state, params, **extra)

    if isinstance(tx, optax.GradientTransformationExtraArgs):
        return optax.GradientTransformationExtraArgs(init, update)
    return optax.GradientTransformation(init, update)


def learning_rates_of(optimizer: Optimizer, num_train_steps: int) -> ScheduleFn:
    """`optimizer.learning_rate_at`, guarded as `build_transformation` is."""
    with user_code(optimizer, "optimizer"):
        rate = optimizer.learning_rate_at(num_train_steps)

    def guarded(step: Any) -> jax.Array:
        with user_code(optimizer, "optimizer"):
            return rate(step)

    return guarded


# Optimizers that work with norms or shapes of whole tensors; the others work by element.
_PER_TENSOR = {f"optax.{name}" for name in ("contrib.muon", "fromage", "lamb", "lars", "novograd")}

_NEEDS_LOSS = "its update takes the loss, which a train step does not hand on"
_OTHER_PARAMETERS = "it trains parameters other than those to evaluate, which a run does not keep"

_UNFIT = {
    "optax.adafactor": "use the section Adafactor, which has T5X's semantics",
    "optax.contrib.dpsgd": "it takes the gradient of every example",
    "optax.contrib.galore": "its state cannot hold parameters that are not matrices",
    "optax.contrib.momo": _NEEDS_LOSS,
    "optax.contrib.momo_adam": _NEEDS_LOSS,
    "optax.contrib.schedule_free_adamw": _OTHER_PARAMETERS,
    "optax.contrib.schedule_free_sgd": _OTHER_PARAMETERS,
    "optax.contrib.sophia": _NEEDS_LOSS,
    "optax.lbfgs": "its line search evaluates the loss, which a train step does once",
    "optax.optimistic_adam": "optax has replaced it by optax.optimistic_adam_v2",
    "optax.rprop": "it takes no learning rate schedule",
    "optax.sm3": "it takes no learning rate schedule",
}


def per_layer(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Applies `tx` to every layer of a stack on its own, as if the stack were unrolled.

    In the state, arrays shaped like a parameter keep its path (as a suffix) and its shape; scalars
    of `tx` get a leading layers axis.
    """

    def init(params: optax.Params) -> Any:
        # optax.partition initializes absent stacks too, and vmap refuses a tree without arrays.
        return jax.vmap(tx.init)(params) if jax.tree.leaves(params) else tx.init(params)

    def update(updates: optax.Updates, state: Any, params: optax.Params | None = None):
        apply = jax.vmap(tx.update) if jax.tree.leaves(updates) else tx.update
        return apply(updates, state, params)

    def label(keys: tuple, _) -> str:
        stack = stack_of(parameter_path(keys))
        return _LAYERS[stack] if stack else "rest"

    layers = optax.GradientTransformation(init, update)
    labels = lambda params: jax.tree_util.tree_map_with_path(label, params)
    return optax.partition({**dict.fromkeys(_LAYERS.values(), layers), "rest": tx}, labels)


# Labels of `per_layer`, which are keys of optimizer states in checkpoints.
_LAYERS = {stack: f"{stack}/layers" for stack in STACKS}


def _decay_mask(params: optax.Params) -> Any:
    """True for kernels and embeddings, False for norm scales and relative position biases."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key != "scale" and all(k.key != "relpos_bias" for k in path),
        params,
    )


def _optax_factories() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """Name -> function, for every public optimizer of optax that takes a learning rate."""
    found = {}
    for module in (optax, optax.contrib):
        for name, value in inspect.getmembers(module, inspect.isfunction):
            takes_rate = next(iter(inspect.signature(value).parameters), None) == "learning_rate"
            if takes_rate and not name.startswith(("_", "scale_by_")):
                found[f"{module.__name__}.{name}"] = value
    return found


def _optax_factory(name: str) -> Callable[..., optax.GradientTransformation]:
    if name in _UNFIT:
        raise ConfigError(f"OptaxOptimizer.factory cannot be {name}: {_UNFIT[name]}")
    factories = {k: v for k, v in _optax_factories().items() if k not in _UNFIT}
    if name not in factories:
        near = difflib.get_close_matches(name, factories, n=3) or sorted(factories)
        raise ConfigError(
            f"OptaxOptimizer.factory is {name!r}, which is not an optimizer of optax "
            f"{optax.__version__}; did you mean one of: {', '.join(near)}?"
        )
    return factories[name]


def _checked_arguments(factory: Callable, name: str, arguments: dict[str, float]) -> dict[str, Any]:
    """The arguments, in the types that the factory's defaults have."""
    not_numbers = ("mask", "dtype", "key")
    parameters = {
        key: parameter
        for key, parameter in inspect.signature(factory).parameters.items()
        if key != "learning_rate" and not key.endswith(not_numbers)
    }
    checked = {}
    for key, value in arguments.items():
        if key not in parameters:
            near = difflib.get_close_matches(key, parameters, n=3) or list(parameters)
            hint = f"did you mean one of: {', '.join(near)}?" if near else "it has none"
            raise ConfigError(f"OptaxOptimizer.arguments: {name} has no argument {key!r}; {hint}")
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(
                f"OptaxOptimizer.arguments: {key} is {value!r}: it must be a finite number"
            )
        kind = type(parameters[key].default)
        checked[key] = kind(value) if kind in (bool, int) and kind(value) == value else value
    return checked


def _is_positive(value: float) -> bool:
    return 0.0 < value < math.inf


def _or_none(condition: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or condition(value)


def _is_rate(value: float) -> bool:
    return 0.0 <= value < math.inf


def _require(section: Any, field: str, condition: Callable[[Any], bool], must: str):
    value = getattr(section, field)
    if not condition(value):
        raise ConfigError(f"{type(section).__name__}.{field} is {value!r}: it must {must}")


def _check_all(section: Any):
    """The fields that every optimizer has."""
    _require(section, "learning_rate", _is_positive, "be finite and above 0")
    _require(section, "global_norm_clip", _or_none(_is_positive), "be above 0, or None")

"""Learning-rate schedules: a dataclass per schedule, whose `build` makes a function of the step.

Steps are counted from 0: update number n (n = 0, 1, …) is made with the rate at `step = n`, so a
linear warm-up begins at exactly `initial_fraction` of the learning rate (0 by default, as in T5X:
the first update of such a run changes nothing), reaches the learning rate at `warmup_steps`, and a
decay would reach its final value at `num_train_steps`, one after the last update. From there on it
stays. T5X lifts every rate to at least 1e-8; here a rate of 0 is 0.

Below, r is the learning rate, s the step, W `warmup_steps`, N `num_train_steps`, and
ramp(s) = initial + (1 - initial) · min(1, s / W), which is 1 when W = 0.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from t5jax.errors import ConfigError, user_code

# step (an integer, or an int32 scalar inside jit) -> float32 scalar; pure, no Python state.
ScheduleFn = Callable[[ArrayLike], jax.Array]


class _Schedule:
    """Values are checked when they are set, and by `build`: a config may have changed them."""

    __slots__ = ()
    warmup_steps: int

    def __post_init__(self):
        self.check()

    def check(self):
        """Raises ConfigError for a value out of range."""
        _check_ramp(self)


class _Decay(_Schedule):
    """A warm-up, and from its end a decay to r · final_fraction at N."""

    __slots__ = ()

    def check(self):
        _check_ramp(self)
        _check_fraction(self, "final_fraction")

    def build(self, learning_rate: float, num_train_steps: int) -> ScheduleFn:
        _check_run(self, learning_rate, num_train_steps)
        decay_steps = num_train_steps - self.warmup_steps
        return _warmup_and_decay(self, learning_rate, num_train_steps, decay_steps, self._shape)

    def _shape(self, u: jax.Array) -> jax.Array:
        """What is left of the decay, from 1 to 0, when the share u of its steps is left."""
        raise NotImplementedError


@dataclasses.dataclass(kw_only=True, slots=True)
class Constant(_Schedule):
    """rate(s) = r · ramp(s).

    T5's fine-tuning (r = 1e-3, no warm-up). T5X: `factors="constant"`, or with a warm-up
    `"constant * linear_warmup"`. `build` raises ConfigError when the warm-up outlasts the run.
    """

    warmup_steps: int = 0
    initial_fraction: float = 0.0

    def build(self, learning_rate: float, num_train_steps: int) -> ScheduleFn:
        _check_run(self, learning_rate, num_train_steps)
        return lambda step: _float32(learning_rate * _ramp(self, _float32(step)))


@dataclasses.dataclass(kw_only=True, slots=True)
class Rsqrt(_Schedule):
    """rate(s) = r / sqrt(max(s, W)) · [min(1, s / W) if linear_warmup] · tail(s).

    T5's pre-training: r = 1 and W = 10 000 give 0.01 for the first 10 000 steps, then an inverse
    square root (T5 paper, section 3.1.2). "Warm-up" is a constant here, not a ramp, so W may be
    longer than the run and step 0 gives r / sqrt(W); with `linear_warmup` step 0 gives 0.
    tail(s) = clip((N - s) / (N · decay_fraction), 0, 1): Mesh-TensorFlow's linear decay to 0 over
    the last `decay_fraction` of the run (its `learning_rate_schedule_noam`; 0.1 by default there,
    0 for the published pre-training and here).

    T5X: `"constant * rsqrt_decay"`; with `linear_warmup` its default, `"constant * linear_warmup *
    rsqrt_decay"`; its `rsqrt_normalized_decay` with base b is r = b · sqrt(W).
    """

    warmup_steps: int = 10_000
    linear_warmup: bool = False
    decay_fraction: float = 0.0

    def check(self):
        if self.warmup_steps < 1:
            raise ConfigError(
                f"Rsqrt.warmup_steps is {self.warmup_steps}: the rate is r / sqrt(max(step, "
                "warmup_steps)), so it must be at least 1"
            )
        _check_fraction(self, "decay_fraction")

    def build(self, learning_rate: float, num_train_steps: int) -> ScheduleFn:
        _check_run(self, learning_rate, num_train_steps, warmup_in_run=self.linear_warmup)

        def rate(step: ArrayLike) -> jax.Array:
            step = _float32(step)
            value = learning_rate * jax.lax.rsqrt(jnp.maximum(step, float(self.warmup_steps)))
            if self.linear_warmup:
                value *= jnp.minimum(1.0, step / self.warmup_steps)
            if self.decay_fraction:
                value *= _remaining(step, self.decay_fraction * num_train_steps, num_train_steps)
            return _float32(value)

        return rate


@dataclasses.dataclass(kw_only=True, slots=True)
class Linear(_Decay):
    """rate(s) = r · ramp(s) until W, then a straight line to r · final_fraction at N.

    For s >= W: rate(s) = r · (final + (1 - final) · (N - s) / (N - W)). `build` raises ConfigError
    when the warm-up outlasts the run.
    """

    warmup_steps: int = 0
    initial_fraction: float = 0.0
    final_fraction: float = 0.0

    def _shape(self, u: jax.Array) -> jax.Array:
        return u


@dataclasses.dataclass(kw_only=True, slots=True)
class Cosine(_Decay):
    """rate(s) = r · ramp(s) until W, then half a cosine to r · final_fraction at N.

    For s >= W: rate(s) = r · (final + (1 - final) · (1 + cos(π · (s - W) / (N - W))) / 2). nanoT5's
    recipe is r = 2e-2, W = 10 000, N = 65 536, `initial_fraction=0.5` (torch's `LinearLR` starts at
    half the rate) and `final_fraction=5e-4` (a final rate of 1e-5). Unlike T5X's `cosine_decay` it
    never starts again. `build` raises ConfigError when the warm-up outlasts the run.
    """

    warmup_steps: int = 0
    initial_fraction: float = 0.0
    final_fraction: float = 0.0

    def _shape(self, u: jax.Array) -> jax.Array:
        return 0.5 * (1.0 - jnp.cos(jnp.pi * u))


@dataclasses.dataclass(kw_only=True, slots=True)
class WarmupStableDecay(_Schedule):
    """rate(s) = r · ramp(s), then r, then a decay over the last `decay_fraction` of the run.

    In the last D = N · decay_fraction steps, with u = clip((N - s) / D, 0, 1) falling from 1 to 0:
    rate(s) = r · (final + (1 - final) · shape(u)), shape "linear": u, shape "sqrt": 1 - sqrt(1 - u)
    (the "1-sqrt" cool-down of Hägele et al. 2024, arXiv:2405.18392). With the linear shape and no
    warm-up this is Mesh-TensorFlow's constant rate with `linear_decay_fraction`. `build` raises
    ConfigError when warm-up and decay together outlast the run.
    """

    warmup_steps: int = 0
    initial_fraction: float = 0.0
    decay_fraction: float = 0.1
    final_fraction: float = 0.0
    shape: Literal["linear", "sqrt"] = "linear"

    def check(self):
        _check_ramp(self)
        _check_fraction(self, "decay_fraction")
        _check_fraction(self, "final_fraction")
        if self.decay_fraction == 0.0:
            raise ConfigError(
                "WarmupStableDecay.decay_fraction is 0, so nothing decays: "
                "give the fraction of the run that decays, or use the schedule Constant"
            )
        if self.shape not in ("linear", "sqrt"):
            raise ConfigError(
                f"WarmupStableDecay.shape is {self.shape!r}: choose 'linear' or 'sqrt'"
            )

    def build(self, learning_rate: float, num_train_steps: int) -> ScheduleFn:
        _check_run(self, learning_rate, num_train_steps)
        decay_steps = self.decay_fraction * num_train_steps
        if self.warmup_steps > num_train_steps - decay_steps:
            raise ConfigError(
                f"WarmupStableDecay: {self.warmup_steps} warmup_steps and a decay_fraction of "
                f"{self.decay_fraction} ({decay_steps:g} steps) do not fit into "
                f"{num_train_steps} training steps: make one of them smaller"
            )
        shape = (lambda u: 1.0 - jnp.sqrt(1.0 - u)) if self.shape == "sqrt" else lambda u: u
        return _warmup_and_decay(self, learning_rate, num_train_steps, decay_steps, shape)


@runtime_checkable
class CustomSchedule(Protocol):
    """A schedule of a user's module: a dataclass with this method (docs/extending.md)."""

    def build(self, learning_rate: float, num_train_steps: int) -> ScheduleFn:
        """The rate of each step of a run, or of an array of steps. Raises ConfigError for values
        that do not fit the run."""
        ...


Schedule = Constant | Rsqrt | Linear | Cosine | WarmupStableDecay | CustomSchedule


def build_schedule(schedule: Schedule, learning_rate: float, num_train_steps: int) -> ScheduleFn:
    """`schedule.build`. What a user's schedule raises, here or when it is asked for a rate, is a
    ConfigError that names it."""
    with user_code(schedule, "schedule"):
        rate = schedule.build(learning_rate, num_train_steps)

    def guarded(step: ArrayLike) -> jax.Array:
        with user_code(schedule, "schedule"):
            return rate(step)

    return guarded


class HostSchedule:
    """Learning rates on the host, for logging, prefetched in blocks of steps.

    Evaluating a schedule between two training steps would queue behind one of them. So a block of
    steps is computed while the block before it is in use; blocks begin at multiples of their size,
    so that a step's rate has the same bits in every run.
    """

    BLOCK_STEPS = 1 << 12

    def __init__(self, schedule: ScheduleFn, first_step: int):
        self._schedule = schedule
        self._block = first_step // self.BLOCK_STEPS
        self._rates = np.asarray(self._block_rates(self._block))
        self._next_rates = self._block_rates(self._block + 1)

    def __call__(self, step: int) -> float:
        """The rate of a step (from 0); blocks of earlier calls cannot be returned to."""
        while step // self.BLOCK_STEPS > self._block:
            self._block += 1
            self._rates = np.asarray(self._next_rates)
            self._next_rates = self._block_rates(self._block + 1)
        return float(self._rates[step - self._block * self.BLOCK_STEPS])

    def _block_rates(self, block: int) -> jax.Array:
        first = block * self.BLOCK_STEPS
        steps = np.arange(first, first + self.BLOCK_STEPS, dtype=np.int32)
        return jnp.broadcast_to(self._schedule(steps), steps.shape)  # some give one for all


def _float32(value: ArrayLike) -> jax.Array:
    return jnp.asarray(value, jnp.float32)


def _ramp(schedule, step: jax.Array) -> jax.Array:
    """The linear warm-up from `initial_fraction` at step 0 to 1 at `warmup_steps`."""
    if schedule.warmup_steps == 0:
        return jnp.ones_like(step)
    start = schedule.initial_fraction
    return start + (1.0 - start) * jnp.minimum(1.0, step / schedule.warmup_steps)


def _warmup_and_decay(
    schedule,
    learning_rate: float,
    num_train_steps: int,
    decay_steps: float,
    shape: Callable[[jax.Array], jax.Array],
) -> ScheduleFn:
    """r · ramp(s) · (final + (1 - final) · shape(u)), where u falls from 1 to 0 over the last
    `decay_steps`."""

    def rate(step: ArrayLike) -> jax.Array:
        step = _float32(step)
        decay = shape(_remaining(step, decay_steps, num_train_steps))
        value = schedule.final_fraction + (1.0 - schedule.final_fraction) * decay
        return _float32(learning_rate * _ramp(schedule, step) * value)

    return rate


def _remaining(step: jax.Array, decay_steps: float, num_train_steps: int) -> jax.Array:
    """What is left of a decay over the last `decay_steps` of the run: 1 before it, 0 at its end."""
    # A warm-up as long as the run leaves no steps to decay in.
    return jnp.clip((num_train_steps - step) / max(decay_steps, 1e-9), 0.0, 1.0)


def _check_fraction(schedule, field: str):
    value = getattr(schedule, field)
    if not 0.0 <= value <= 1.0:
        raise ConfigError(
            f"{type(schedule).__name__}.{field} is {value}: it must lie between 0 and 1"
        )


def _check_ramp(schedule):
    name = type(schedule).__name__
    if schedule.warmup_steps < 0:
        raise ConfigError(f"{name}.warmup_steps is {schedule.warmup_steps}: it must be 0 or more")
    _check_fraction(schedule, "initial_fraction")
    if schedule.initial_fraction and not schedule.warmup_steps:
        raise ConfigError(
            f"{name}.initial_fraction is {schedule.initial_fraction} but there is no warm-up to "
            "start from it: set warmup_steps, or leave initial_fraction at 0"
        )


def _check_run(schedule, learning_rate: float, num_train_steps: int, *, warmup_in_run: bool = True):
    """Checks that need the run. The fields are checked again: a config may have changed them."""
    schedule.check()
    name = type(schedule).__name__
    if not 0.0 <= learning_rate < float("inf"):
        raise ConfigError(f"learning_rate is {learning_rate}: it must be finite and not negative")
    if num_train_steps < 1:
        raise ConfigError(f"num_train_steps is {num_train_steps}: a run has at least 1 step")
    if warmup_in_run and schedule.warmup_steps > num_train_steps:
        raise ConfigError(
            f"{name}.warmup_steps is {schedule.warmup_steps}, longer than the run of "
            f"{num_train_steps} training steps, so the learning rate would never be reached: "
            f"set optimizer.schedule.warmup_steps to at most {num_train_steps}, or train longer"
        )

"""A run without its data: program and abstract arguments of its steps, from the config alone.

Neither stores nor the vocabulary's file need to be there: lengths come from the tasks' definitions
and the config, ids from the model where the file is missing.
"""

import dataclasses
import os
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from t5jax.config import RunConfig
from t5jax.data.pipeline.converters import batch_shapes
from t5jax.data.registry.names import find_definitions
from t5jax.data.registry.resolved_task import resolve_tasks
from t5jax.data.registry.row_format import RowFormat, row_format
from t5jax.data.vocabularies import DEFAULT_SENTINELS, ByteVocabulary, Vocabulary
from t5jax.data.vocabularies.files import is_local
from t5jax.errors import DataError
from t5jax.model.config import T5Config
from t5jax.run.build import build_program
from t5jax.training.steps import Program


@dataclasses.dataclass(kw_only=True, slots=True)
class AssumedVocabulary(Vocabulary):
    """In place of a vocabulary whose file is not here: T5's layout of ids, in the model's numbers.

    A text has as many ids as UTF-8 bytes, which no piece of a vocabulary exceeds.
    """

    kind: ClassVar[str] = "assumed"
    file_name: ClassVar[str | None] = None

    model: T5Config
    extra_ids: int | None = DEFAULT_SENTINELS

    @property
    def pad_id(self) -> int:
        return self.model.pad_id

    @property
    def eos_id(self) -> int:
        return self.model.eos_id

    @property
    def vocab_size(self) -> int:
        return self.model.softmax_size or self.model.vocab_size

    @property
    def fingerprint(self) -> str:
        raise DataError("a vocabulary that is only assumed has no fingerprint")

    def file_bytes(self) -> bytes | None:
        return None

    def encode(self, text: str, *, sentinels: bool = True) -> np.ndarray:
        return np.full(len(text.encode()), self.unk_id, np.int32)

    def decode(self, ids: Any) -> str:
        raise DataError("a vocabulary that is only assumed has no texts")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AbstractRun:
    """What a run's steps are compiled from.

    Attributes:
      config: with a vocabulary that can be asked for its ids.
      shapes: of a row of each array of a batch.
      num_tasks: of the mixture; with several each row of a batch says which it is of.
      assumptions: what stands in for files that are not here.
    """

    config: RunConfig
    row_format: RowFormat
    shapes: dict[str, tuple[int, ...]]
    num_tasks: int
    assumptions: tuple[str, ...]

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of the encoder's and the decoder's rows, 0 where there is none."""
        return self.row_format.lengths

    def program(self, mesh: jax.sharding.Mesh) -> Program:
        return build_program(self.config, self.num_tasks, mesh=mesh)

    def train_batch(self, program: Program) -> dict[str, jax.ShapeDtypeStruct]:
        """The abstract batch of the train step."""
        return program.abstract_batch(self.shapes, self.config.train.batch_size)

    def eval_batch(self, program: Program) -> dict[str, jax.ShapeDtypeStruct]:
        """That of the evaluation step: one microbatch, rounded up to what the mesh divides."""
        train, replicas = self.config.train, program.replicas
        shapes = {name: shape for name, shape in self.shapes.items() if name != "task_ids"}
        return program.abstract_batch(shapes, -(-train.microbatch_size // replicas) * replicas)


def abstract_run(config: RunConfig) -> AbstractRun:
    """The run of a config. Raises ConfigError where the config contradicts itself."""
    config, assumptions = with_vocabulary(config)
    data = config.data
    tasks = resolve_tasks(find_definitions(data).tasks, data)
    rows = row_format(config.model.architecture, tasks, data, config.model.decoder_start_id)
    packed = data.pack and any(task.objective is None for task in tasks)
    shapes = batch_shapes(rows, packed=packed)
    shapes |= {"task_ids": ()} if len(tasks) > 1 else {}
    return AbstractRun(
        config=config,
        row_format=rows,
        shapes=shapes,
        num_tasks=len(tasks),
        assumptions=assumptions,
    )


def abstract_key(program: Program) -> jax.ShapeDtypeStruct:
    """A random key on every device of the program's mesh; a real one would be on the host's."""
    dtype = jax.eval_shape(lambda: jax.random.key(0)).dtype
    return jax.ShapeDtypeStruct((), dtype, sharding=program.replicated)


def compute_params(program: Program) -> Any:
    """Abstract parameters of the model alone in the compute dtype, as evaluation's decoding has
    them."""
    dtype = jnp.dtype(program.model.dtype)
    params = program.without_peft.abstract_state.params
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding), params)


def with_vocabulary(config: RunConfig) -> tuple[RunConfig, tuple[str, ...]]:
    """The config with a vocabulary whose ids are known, and what was assumed for that."""
    vocabulary: Any = config.data.vocabulary
    if isinstance(vocabulary, ByteVocabulary | AssumedVocabulary):
        return config, ()
    path = str(vocabulary.path)
    if is_local(path) and os.path.exists(path):
        return config, ()
    extra_ids = getattr(vocabulary, "extra_ids", None)
    assumed: Any = AssumedVocabulary(model=config.model, extra_ids=extra_ids or DEFAULT_SENTINELS)
    note = (
        f"the vocabulary {path} is not here: its ids are taken to be those of model.vocab_size = "
        f"{config.model.vocab_size}, the sentinels at the top (a prefix is as long as its bytes)"
    )
    data = dataclasses.replace(config.data, vocabulary=assumed)
    return dataclasses.replace(config, data=data), (note,)

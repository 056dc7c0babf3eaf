"""T5's span corruption as a seqio preprocessor, in TensorFlow operations.

The steps are those of `span_corruption` in T5's published preprocessors: a random chunk of each
long document, 128 chunks joined, the result cut into rows, a random-spans mask over each row. The
arithmetic is the objective's. Random numbers come from seqio's seeds, so the examples differ from
those of the cached backend, not their distribution.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from t5jax.data.objectives import SpanCorruption
from t5jax.data.seqio_bridge.vocabularies import TextVocabulary
from t5jax.data.tensorflow_import import import_seqio, import_tensorflow
from t5jax.data.vocabularies import DEFAULT_SENTINELS
from t5jax.errors import ConfigError

seqio = import_seqio()
tf = import_tensorflow()

CHUNK_TOKENS = 65_536
JOINED_CHUNKS = 128


@dataclasses.dataclass
class SpanCorruptionPreprocessor:
    """Tokens under `targets` -> `inputs` and `targets` of the objective, without EOS.

    `append_eos_after_trim` belongs behind it, nothing between it and `tokenize`. seqio fills in the
    last two fields.
    """

    objective: SpanCorruption
    sequence_length: Mapping[str, int] | None = None
    output_features: Mapping[str, Any] | None = None

    def __call__(self, dataset):
        if not self.sequence_length or not self.output_features:
            raise ConfigError(
                "span corruption needs sequence_length: get_dataset(…, "
                "{'inputs': 512, 'targets': 114})"
            )
        vocabulary = self.output_features["targets"].vocabulary
        inputs_length = self.sequence_length["inputs"]
        self.objective.check(
            inputs_length=inputs_length,
            targets_length=self.sequence_length["targets"],
            num_sentinels=len(_sentinel_ids(vocabulary)),
        )
        dataset = dataset.map(
            lambda example: example["targets"], num_parallel_calls=tf.data.AUTOTUNE
        )
        dataset = dataset.filter(lambda tokens: tf.size(tokens) > 0)
        rows = rows_of_tokens(dataset, self.objective.lengths(inputs_length).raw)
        return corrupt_rows(rows, self.objective, _sentinel_ids(vocabulary))


def rows_of_tokens(dataset, length: int, eos_id: int | None = None):
    """int32 [<= length] rows of documents' tokens: only the last of each 128 chunks' rows is
    shorter. `eos_id` comes behind each document, where it is not None."""

    @seqio.map_over_dataset(num_seeds=1)
    def random_chunk(tokens, seed):
        chunks = (tf.size(tokens) + CHUNK_TOKENS - 1) // CHUNK_TOKENS
        start = CHUNK_TOKENS * tf.random.stateless_uniform([], seed, maxval=chunks, dtype=tf.int32)
        chunk = tokens[start : start + CHUNK_TOKENS]
        return chunk if eos_id is None else tf.concat([chunk, [eos_id]], 0)

    def cut(joined):
        tokens = tf.boolean_mask(
            joined.values, joined.values != 0
        )  # as published: 0 can only be padding
        whole = tf.size(tokens) // length * length
        lengths = tf.fill([whole // length], length)
        lengths = tf.cond(
            whole < tf.size(tokens),
            lambda: tf.concat([lengths, [tf.size(tokens) - whole]], 0),
            lambda: lengths,
        )
        return tf.data.Dataset.from_tensor_slices(tf.RaggedTensor.from_row_lengths(tokens, lengths))

    dataset = random_chunk(dataset).ragged_batch(JOINED_CHUNKS)
    return dataset.flat_map(cut)


def _sentinel_ids(vocabulary) -> tuple[int, ...]:
    """Of a seqio vocabulary: those of ours that it stands for, or the top ids, downwards."""
    if isinstance(vocabulary, TextVocabulary):
        return vocabulary.vocabulary.sentinel_ids
    last = vocabulary.vocab_size - 1
    return tuple(range(last, last - (vocabulary.extra_ids or DEFAULT_SENTINELS), -1))


def corrupt_rows(dataset, objective: SpanCorruption, sentinel_ids: tuple[int, ...]):
    """Rows of tokens -> {"inputs", "targets"}: every noise span one sentinel, `sentinel_ids` in
    order."""

    @seqio.map_over_dataset(num_seeds=2)
    def corrupt(tokens, seeds):
        mask = random_spans_mask(tf.size(tokens), objective, seeds)
        return {
            "inputs": tf_unique_sentinels(tokens, mask, sentinel_ids),
            "targets": tf_unique_sentinels(tokens, ~mask, sentinel_ids),
        }

    return corrupt(dataset)


def random_spans_mask(length, objective: SpanCorruption, seeds):
    """bool [length], True for noise; text comes first, noise last; counts rounded as
    `objective.counts` does."""
    drawn = tf.maximum(length, 2)  # as published: a single token is the first, i.e. text, of two
    noise = tf.cast(tf.round(tf.cast(drawn, tf.float32) * objective.noise_density), tf.int32)
    noise = tf.clip_by_value(noise, 1, drawn - 1)
    spans = tf.cast(
        tf.round(tf.cast(noise, tf.float32) / objective.mean_noise_span_length), tf.int32
    )
    spans = tf.minimum(tf.maximum(spans, 1), tf.minimum(noise, drawn - noise))
    parts = [
        random_composition(drawn - noise, spans, seeds[0]),
        random_composition(noise, spans, seeds[1]),
    ]
    lengths = tf.reshape(tf.stack(parts, axis=1), [-1])
    return tf.repeat(tf.tile([False, True], [spans]), lengths)[:length]


def random_composition(items, parts, seed):
    """int32 [parts], positive, of sum `items`: the gaps with the largest random numbers are the
    cuts."""
    gaps = tf.random.stateless_uniform([items - 1], seed)
    cuts = tf.sort(tf.math.top_k(gaps, parts - 1, sorted=False).indices) + 1
    return tf.concat([cuts, [items]], 0) - tf.concat([[0], cuts], 0)


def tf_unique_sentinels(tokens, mask, sentinel_ids: tuple[int, ...]):
    """The tokens with every run of the mask replaced by one sentinel."""
    starts = mask & ~tf.concat([[False], mask[:-1]], 0)
    numbers = tf.maximum(tf.cumsum(tf.cast(starts, tf.int32)) - 1, 0)
    sentinels = tf.gather(tf.constant(sentinel_ids, tokens.dtype), numbers)
    return tf.boolean_mask(tf.where(starts, sentinels, tokens), starts | ~mask)

"""The published forms of seqio tasks, written anew over a few invented rows.

Each is registered as `form_NAME`. Texts are longer and shorter than the lengths that the tests run
them with, so that every rule of trimming and EOS shows.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from t5jax.data.tensorflow_import import import_seqio, import_tensorflow

seqio = import_seqio()
tf = import_tensorflow()

LENGTHS = {"inputs": 23, "targets": 9}
CHOICES = ("yes", "no", "perhaps so it seems")
QUESTIONS = (
    "is water wet",
    "is the moon made of cheese",
    "do fish sleep",
    "is seven prime and odd and small",
    "no",
    "can a <extra_id_0> blank be filled",
    "does rain fall upwards on Sundays",
)
LABELS = (0, 1, 2, 0, 1, 2, 1)


@dataclasses.dataclass(frozen=True)
class Form:
    """A registered task, and what t5jax can do with it."""

    name: str
    stored: bool = True  # a store can stand for it
    random: bool = False  # its rows differ between seeds
    takes_seed: bool = True  # its source does
    architecture: str = "encoder_decoder"


FORMS: dict[str, Form] = {}
SEEN: list[tuple[Any, Any]] = []  # what metrics were given, in their order


def rows(split: str, shuffle_files: bool = False, seed: int | None = None) -> Any:
    """Questions with an answer; without a seed they are never shuffled, as in a source of text."""
    repeats = 2 if split == "train" else 1
    return tf.data.Dataset.from_tensor_slices(
        {
            "inputs": [*QUESTIONS] * repeats,
            "targets": [CHOICES[label] for label in LABELS] * repeats,
            "answer_choices": [list(CHOICES)] * (len(LABELS) * repeats),
        }
    )


def rows_without_seed(split: str, shuffle_files: bool = False) -> Any:
    return rows(split)


def source(function: Any = rows) -> Any:
    counts = {"train": 2 * len(QUESTIONS), "validation": len(QUESTIONS)}
    return seqio.FunctionDataSource(function, ("train", "validation"), num_input_examples=counts)


def equal(targets, predictions):
    """Counts what is equal, and keeps what it is given."""
    SEEN.append((targets, predictions))
    return {"equal": float(np.mean([t == p for t, p in zip(targets, predictions, strict=True)]))}


def best_choice(targets, scores):
    """Rank classification over (question, choice) rows: the best choice of each question."""
    SEEN.append((targets, np.asarray(scores).tolist()))
    questions: dict[int, list[tuple[float, bool, float]]] = {}
    for (index, is_correct, weight, length), score in zip(targets, scores, strict=True):
        questions.setdefault(int(index[0]), []).append((score / length, is_correct, weight))
    right = [max(rows)[1] * max(rows)[2] for rows in questions.values()]
    return {"best_choice": 100.0 * float(np.mean(right))}


def class_of(text, example=None, is_target=False):
    """T0's class ids; the raw example says which answers there are."""
    choices = [choice.decode() for choice in example["answer_choices"]]
    return choices.index(text) if text in choices else -1


def ranked(text, example=None, is_target=False):
    """As T5's rank classification: the row's place and weight, and how many tokens it has."""
    if not is_target:
        return text
    return tuple(example["idx"]), bool(example["is_correct"]), 1.0, len(example["targets"])


def any_answer(text, example=None, is_target=False):
    """As closed-book questions are scored: all answers that are right."""
    return [a.decode() for a in example["answers"]] if is_target else text


def every_choice(dataset):
    """One row a choice, as rank classification scores them."""

    def rows_of(index, x):
        count = tf.size(x["answer_choices"])
        return {
            "idx": tf.stack([tf.fill([count], tf.cast(index, tf.int32)), tf.range(count)], axis=1),
            "inputs": tf.fill([count], x["inputs"]),
            "targets": x["answer_choices"],
            "is_correct": x["answer_choices"] == x["targets"],
            "weight": tf.fill([count], 1.5),
        }

    return dataset.enumerate().map(rows_of).unbatch()


@seqio.map_over_dataset
def closed_book(x):
    return {
        "inputs": tf.strings.join(["trivia question: ", x["inputs"]]),
        "targets": x["targets"],
        "answers": tf.stack([x["targets"], tf.strings.upper(x["targets"])]),
    }


@seqio.map_over_dataset(num_seeds=1)
def any_wording(x, seed):
    """One of several templates, by chance (FLAN)."""
    wordings = tf.constant(["Answer: ", "Now say: ", "Q. "])
    wording = wordings[tf.random.stateless_uniform([], seed, maxval=3, dtype=tf.int32)]
    return {**x, "inputs": tf.strings.join([wording, x["inputs"]])}


def halved(dataset, sequence_length, output_features):
    """Half of the inputs' room, as a step that looks at the run's lengths."""
    room = sequence_length["inputs"] // 2
    return dataset.map(lambda x: {**x, "inputs": x["inputs"][:room]})


def short_texts(dataset, sequence_length):
    """Before tokenize: texts of as many bytes as there is room, and one more."""
    room = sequence_length["inputs"] + 1
    return dataset.map(lambda x: {**x, "inputs": tf.strings.substr(x["inputs"], 0, room)})


@dataclasses.dataclass
class DroppedTail:
    """A step as a dataclass, whose fields seqio fills in."""

    tokens: int
    sequence_length: Mapping[str, int] | None = None
    output_features: Mapping[str, Any] | None = None

    def __call__(self, dataset):
        room = self.sequence_length["targets"] - self.tokens
        return dataset.map(lambda x: {**x, "targets": x["targets"][:room]})


@seqio.map_over_dataset(num_seeds=2)
def masked(x, seeds, sequence_length, output_features):
    """Span corruption in miniature: each token is hidden or shown (mT5's rows: text and hidden)."""
    tokens = x["targets"][: sequence_length["inputs"] - 2]
    size = output_features["inputs"].vocabulary.vocab_size
    hidden = tf.random.stateless_uniform(tf.shape(tokens), seeds[0]) < 0.3
    sentinel = size - 1 - tf.random.stateless_uniform([1], seeds[1], maxval=3, dtype=tf.int32)
    return {
        "inputs": tf.concat([tf.boolean_mask(tokens, ~hidden), sentinel], 0),
        "targets": tf.concat([sentinel, tf.boolean_mask(tokens, hidden)], 0),
    }


@seqio.map_over_dataset
def more_features(x):
    """What a model is not given: floats, matrices, nothing at all."""
    return {
        **x,
        "weight": tf.constant(0.25),
        "boxes": tf.ones([3, 2]),
        "none": tf.zeros([0], tf.string),
        "targets_aux": tf.constant([0.5, 0.25]),
    }


def features(vocabulary: Any, **add_eos: bool) -> dict[str, Any]:
    return {name: seqio.Feature(vocabulary, add_eos=ends) for name, ends in add_eos.items()}


def add(name: str, steps: Sequence[Any], output_features: Any, *, of=rows, form=None, **fields):
    form = form or {}
    FORMS[name] = Form(f"form_{name}", **form)
    fields = {"metric_fns": [equal]} | fields
    return seqio.TaskRegistry.add(
        f"form_{name}", source(of), output_features, list(steps), **fields
    )


def register(vocabulary: Any) -> None:
    """Registers every form, with a seqio vocabulary that has sentinels."""
    both = features(vocabulary, inputs=True, targets=True)
    t0 = features(vocabulary, inputs=False, targets=True)
    library, placeholder = seqio.preprocessors, seqio.CacheDatasetPlaceholder()
    tokenize, eos, trim = library.tokenize, library.append_eos, library.append_eos_after_trim
    rekey = functools.partial(library.rekey, key_map={"inputs": None, "targets": "inputs"})
    _register_prompted(t0, [tokenize, eos, seqio.CacheDatasetPlaceholder(required=False)])
    add("flan", [any_wording, tokenize, placeholder, eos], both)
    add("flan_live", [any_wording, tokenize, eos], both, form={"stored": False, "random": True})
    add("span", [rekey, tokenize, placeholder, masked, trim], both,
        form={"stored": False, "random": True})  # fmt: skip
    add("prompt_tuning", [tokenize, placeholder, trim], both)
    add("without_seed", [tokenize, placeholder, halved, eos], both, of=rows_without_seed,
        form={"stored": False, "takes_seed": False})  # fmt: skip
    seqio.experimental.add_task_with_sentinels("form_prompt_tuning")
    FORMS["sentinels"] = Form("form_prompt_tuning_1_sentinel", stored=False)
    add("closed_book", [closed_book, tokenize, trim], both, postprocess_fn=any_answer)
    add("required", [tokenize, seqio.CacheDatasetPlaceholder(required=True), trim], both)
    add("no_eos", [tokenize, placeholder], features(vocabulary, inputs=False, targets=False))
    add("eos_by_tokenize", [functools.partial(tokenize, with_eos=True)], both)
    add("half", [tokenize, placeholder, halved, eos], both, form={"stored": False})
    add("tail", [tokenize, DroppedTail(2), trim], both, form={"stored": False})
    add("left", [tokenize, eos, library.truncate_inputs_left], both, form={"stored": False})
    add("early_lengths", [short_texts, tokenize, eos], both)
    add("more_features", [tokenize, more_features, placeholder, eos], both)
    lm = {"architecture": "decoder_only"}
    targets = features(vocabulary, targets=True)
    add("lm", [rekey, tokenize, eos], targets, form=lm)
    add("lm_live", [rekey, tokenize, placeholder, _doubled, trim], targets,
        form=lm | {"stored": False})  # fmt: skip


def _register_prompted(t0: dict[str, Any], ending: list[Any]) -> None:
    """T0: generation, rank classification, and either cached with all of its steps."""
    add("t0", ending, t0, postprocess_fn=class_of)
    add(
        "t0_score_eval",
        [every_choice, *ending],
        t0,
        postprocess_fn=ranked,
        metric_fns=[best_choice],
    )
    cached = seqio.experimental.add_fully_cached_task("form_t0", LENGTHS)
    FORMS["t0_fully_cached"] = Form(cached.name, stored=False)


@seqio.map_over_dataset
def _doubled(x):
    return {"targets": tf.concat([x["targets"], x["targets"]], 0)}


def remove() -> None:
    """Takes all forms out of seqio's registries."""
    for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
        for name in [name for name in registry.names() if name.startswith("form_")]:
            registry.remove(name)
    FORMS.clear()
    SEEN.clear()

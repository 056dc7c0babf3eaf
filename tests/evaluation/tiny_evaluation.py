"""A task of 13 examples and a byte model of random weights."""

import functools

import jax
import numpy as np
from jax.sharding import AxisType

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.records import Row
from t5jax.data.tasks.task import ExampleTask
from t5jax.data.vocabularies import ByteVocabulary
from t5jax.decoding import DecodingConfig, Generator
from t5jax.model.config import T5Config
from t5jax.sharding import MESH_AXES, MeshConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.optimizers import Adafactor
from t5jax.training.steps import Program
from tests.model import tiny_t5

NUM = 13  # does not divide into batches of any size used
VOCABULARY = ByteVocabulary(extra_ids=29)
CFG = T5Config(
    vocab_size=296,
    emb_dim=24,
    num_heads=4,
    head_dim=6,
    mlp_dim=40,
    num_encoder_layers=2,
    num_decoder_layers=1,
    dtype="float32",
)
DECODING = DecodingConfig(max_length=9)
CHOICES = ("yes", "nay", "perhaps")


class Rows:
    """A source of synthetic rows."""

    def __init__(self, data=None, labelled=True):
        self.labelled = labelled

    def splits(self):
        return ("validation", "test")

    def shards(self, split):
        return ["a", "b"]

    def records(self, split, shard):
        numbers = range(NUM // 2) if shard == "a" else range(NUM // 2, NUM)
        for n in numbers:
            text = " ".join(["many words"] * (1 + n % 4))
            label = n % 3 if split == "validation" else -1
            yield Row({"text": f"{n}: {text}", "label": label, "idx": 100 + n}, f"row {n}")


def examples(row):
    target = CHOICES[row["label"]] if row["label"] >= 0 else "<unk>"
    yield {"inputs": f"is it {row.text('text')}", "targets": target, "idx": row["idx"]}


def postprocess(text, *, example, is_target):
    """The class of a text (-1: of none), with the number of its row."""
    number = CHOICES.index(text) if text in CHOICES else -1
    return {"class": number, "idx": example["idx"], "length": len(text)}


def right(targets, predictions):
    """Percent of the rows whose class is right, and how long the predictions are."""
    assert [t["idx"] for t in targets] == [p["idx"] for p in predictions]
    hits = [t["class"] == p["class"] for t, p in zip(targets, predictions, strict=True)]
    lengths = [p["length"] for p in predictions]
    return {"right": 100 * np.mean(hits), "length": float(np.mean(lengths))}


def likelihood(targets, scores):
    """Mean log-likelihood of the targets."""
    return {"likelihood": float(np.mean(scores))}


def task(name="tiny_examples", **changes) -> ExampleTask:
    fields = {
        "description": "examples for tests",
        "source": Rows,
        "examples": examples,
        "postprocess": postprocess,
        "metrics": (right,),
        "score_metrics": (likelihood,),
        "choices": lambda example: list(CHOICES),
        "splits": ("validation", "test"),
        "train_splits": (),
    }
    return registry.add_task(ExampleTask(name=name, **(fields | changes)))


def data(mixture="tiny_examples", **changes) -> DataConfig:
    fields = {"vocabulary": VOCABULARY, "inputs_length": 31, "targets_length": 9, "cache_dir": None}
    return DataConfig(mixture=mixture, **(fields | changes))


@functools.cache
def params() -> dict:
    """Random weights that end some of the outputs."""
    weights = tiny_t5.random_params(CFG, seed=3)
    weights["logits_dense"][:, VOCABULARY.eos_id] *= 2.5
    return weights


@functools.cache
def program(mesh=(1, 1, 1)) -> Program:
    config = MeshConfig(data=mesh[0], fsdp=mesh[1], tensor=mesh[2])
    return Program(
        model=CFG,
        loss=CrossEntropy(),
        tx=Adafactor().build(1),
        mesh_config=config,
        mesh=jax.make_mesh(
            mesh,
            MESH_AXES,
            axis_types=(AxisType.Auto,) * 3,
            devices=jax.devices()[: np.prod(mesh)],
        ),
    )


def generator() -> Generator:
    """With batches of one example."""
    return Generator(program(), placed(), num_ids=VOCABULARY.vocab_size, batch_size=1)


def placed(mesh=(1, 1, 1)) -> dict:
    return jax.device_put(params(), program(mesh).shardings.params)


def ids(text: str) -> np.ndarray:
    return np.append(VOCABULARY.encode(text), VOCABULARY.eos_id).astype(np.int32)

"""Configs of earlier versions: saved texts load, flags are taken, config files are told new names.

golden/v0_1/config.txt and every_section.txt are what t5jax 0.1 (commit 6083c53) wrote.
"""

import dataclasses
import logging
import pathlib

import pytest

from t5jax.checkpoints import CheckpointConfig
from t5jax.config import (
    RunConfig,
    TrainConfig,
    WarmStart,
    from_text,
    load_config,
    migrated_text,
    migration,
    override,
    to_text,
)
from t5jax.data.config import DataConfig
from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary
from t5jax.decoding.config import DecodingConfig
from t5jax.errors import ConfigError
from t5jax.evaluation.config import EvaluationConfig
from t5jax.model.config import T5Config
from t5jax.run.provenance import changed_lines
from t5jax.runtime import RuntimeConfig
from t5jax.sharding import MeshConfig
from t5jax.tracking import TrackingConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.optimizers import Adafactor, OptaxOptimizer
from t5jax.training.peft import LoRA
from t5jax.training.schedules import Rsqrt, WarmupStableDecay

V0_1 = pathlib.Path(__file__).resolve().parents[1] / "golden" / "v0_1"
SAID = "a saved config has names of an earlier t5jax: reporting is tracking now"


def golden_run() -> RunConfig:
    return RunConfig(
        workdir="run",
        model=T5Config(
            vocab_size=384, emb_dim=24, num_heads=3, head_dim=8, mlp_dim=40, num_encoder_layers=2,
            num_decoder_layers=1, dropout_rate=0.1, dtype="float32", unroll_layers=1, remat="none",
        ),
        data=DataConfig(
            mixture="golden_mix", modules=("golden_tasks_v0_1",), train_files=("text.txt",),
            validation_files=("text-dev.txt",), vocabulary=ByteVocabulary(extra_ids=100),
            inputs_length=61, targets_length=23, cache_dir="cache",
        ),
        train=TrainConfig(
            num_train_steps=4, batch_size=8, num_microbatches=1, eval_every_steps=2, num_eval_rows=5
        ),
        mesh=MeshConfig(fsdp=1),
        loss=CrossEntropy(num_chunks=1),  # the default then
        optimizer=Adafactor(
            learning_rate=0.3, schedule=Rsqrt(warmup_steps=3), min_dim_size_to_factor=16
        ),
        checkpoints=CheckpointConfig(save_every_steps=4),
        evaluation=EvaluationConfig(every_steps=4, batch_size=4),
        tracking=TrackingConfig(tensorboard=False, plot=False, seconds_between_lines=0),
    )  # fmt: skip


def every_section() -> RunConfig:
    """A run of which every section differs from its default."""
    return RunConfig(
        workdir="runs/every",
        model=T5Config(
            architecture="prefix_lm",
            vocab_size=500,
            emb_dim=24,
            num_heads=3,
            head_dim=5,
            mlp_dim=40,
            num_encoder_layers=0,
            num_decoder_layers=3,
            mlp_activations=("relu",),
            tied_embeddings=True,
            relpos_num_buckets=16,
            relpos_max_distance=64,
            per_layer_relative_bias=True,
            dropout_rate=0.25,
            dtype="float32",
            unroll_layers="all",
            remat="full",
        ),
        data=DataConfig(
            mixture="text_span_corruption",
            train_files=("a.txt", "b.txt"),
            validation_files=("c.txt",),
            text_column="body",
            vocabulary=SentencePieceVocabulary(path="v/spiece.model", extra_ids=50),
            objective="prefix_lm",
            inputs_length=200,
            targets_length=90,
            loss_on_targets_only=False,
            max_text_tokens=10_000,
            cache_dir=None,
            on_bad_record="skip",
            max_bad_fraction=0.01,
            seed=3,
        ),
        train=TrainConfig(
            num_train_steps=77,
            batch_size=24,
            num_microbatches=2,
            seed=5,
            eval_every_steps=11,
            num_eval_rows=9,
            max_bad_steps=4,
        ),
        init=WarmStart(path="runs/other", step=70, optimizer="keep", keep_step=True),
        finetuning=LoRA(rank=2, alpha=4.0, patterns=("wi",)),
        loss=CrossEntropy(
            z_loss=0.0,
            label_smoothing=0.1,
            normalizer="constant",
            normalizing_factor=99.0,
            num_chunks=3,
        ),
        optimizer=OptaxOptimizer(
            factory="optax.lamb",
            learning_rate=0.5,
            arguments={"b1": 0.8},
            schedule=WarmupStableDecay(
                warmup_steps=2,
                initial_fraction=0.1,
                decay_fraction=0.5,
                final_fraction=0.2,
                shape="sqrt",
            ),
            global_norm_clip=2.0,
        ),
        decoding=DecodingConfig(
            max_length=33,
            num_beams=3,
            length_penalty=1.0,
            beam_rule="huggingface",
            num_outputs=2,
            min_length=2,
            no_repeat_ngram=3,
            repetition_penalty=1.5,
            stop=((5, 6), (7,)),
            seed=8,
        ),
        evaluation=EvaluationConfig(
            every_steps=22,
            num_examples=50,
            batch_size=4,
            ranking="total",
            confidence_level=0.9,
            bootstrap_samples=100,
        ),
        mesh=MeshConfig(
            data=2,
            fsdp=-1,
            tensor=1,
            batch=("data",),
            vocab=(),
            embed=("fsdp",),
            heads=(),
            mlp=("tensor",),
            relpos_buckets=(),
        ),
        checkpoints=CheckpointConfig(
            save_every_steps=22,
            keep_newest=2,
            keep_every_steps=44,
            keep_best=1,
            best_metric="validation/accuracy",
            best_mode="max",
        ),
        tracking=TrackingConfig(
            log_every_steps=2,
            tensorboard=False,
            wandb_project="p",
            progress="lines",
            seconds_between_lines=1.5,
            plot=False,
        ),
        runtime=RuntimeConfig(
            coordinator_address="host:1",
            num_processes=2,
            process_id=1,
            detect_cluster=False,
            initialization_timeout_seconds=1,
            heartbeat_timeout_seconds=2,
            shutdown_timeout_seconds=3,
            step_timeout_seconds=4,
            first_step_timeout_seconds=5,
        ),
    )


@pytest.mark.parametrize(
    ("name", "expected"), [("config", golden_run), ("every_section", every_section)]
)
def test_a_config_of_0_1_is_the_config_it_was(name, expected, caplog):
    text = (V0_1 / f"{name}.txt").read_text()
    with caplog.at_level(logging.WARNING, "t5jax"):
        assert from_text(text) == expected()
    assert [record.message for record in caplog.records] == [SAID]


def test_every_section_of_that_text_differs_from_its_default():
    """So that a field which is lost on the way is noticed: each is another than a fresh one's."""
    text, config = (V0_1 / "every_section.txt").read_text(), every_section()
    needed = {"workdir": "x", "model": T5Config(), "train": TrainConfig(num_train_steps=1)}
    data = DataConfig(mixture="y", vocabulary=ByteVocabulary(), cache_dir="z")
    plain = set(migrated_text(to_text(RunConfig(**needed, data=data))).splitlines())
    same = [line for line in migrated_text(text).splitlines() if line in plain]
    for field in dataclasses.fields(config):
        lines = [x for x in migrated_text(text).splitlines() if x.startswith(f"{field.name}")]
        kept = [x for x in same if x.startswith(f"{field.name}.")]
        assert lines, field.name
        assert len(kept) <= len(lines) // 2, (field.name, kept)


def test_text_of_this_version_says_nothing_and_names_its_version(caplog):
    text = to_text(golden_run())
    assert text.startswith(f"config_version = {migration.VERSION}\nworkdir = 'run'\n")
    with caplog.at_level(logging.WARNING, "t5jax"):
        assert from_text(text) == golden_run()
    assert not caplog.records


def test_old_names_in_text_of_this_version_are_refused():
    """They may be names of something else one day."""
    text = to_text(golden_run()).replace("tracking.plot", "reporting.plot")
    with pytest.raises(ConfigError, match=r"unknown fields: reporting\.plot"):
        from_text(text)


def test_text_of_a_later_version_is_refused():
    text = to_text(golden_run()).replace(f"= {migration.VERSION}", f"= {migration.VERSION + 1}", 1)
    with pytest.raises(ConfigError, match="has version 4, and this t5jax reads those up to 3"):
        from_text(text)


def test_a_resumed_run_says_what_changed_and_not_what_was_renamed():
    before = (V0_1 / "config.txt").read_text()
    assert changed_lines(before, to_text(golden_run())) == []
    longer = dataclasses.replace(golden_run(), train=TrainConfig(num_train_steps=9))
    assert "train.num_train_steps = 9" in changed_lines(before, to_text(longer))


def test_fields_and_classes_are_renamed_from_version_to_version(monkeypatch, caplog):
    """As the next ones will be: a field of a section that was renamed before it, a class."""
    fields = (*migration.RENAMED_FIELDS, migration.Renamed(9, "tracking.plot", "tracking.curve"))
    monkeypatch.setattr(migration, "VERSION", 9)
    monkeypatch.setattr(migration, "RENAMED_FIELDS", fields)
    monkeypatch.setattr(migration, "RENAMED_CLASSES", (migration.Renamed(9, "Adam", "AdamW"),))
    old = "reporting.plot = True\nreporting.plots = 1\noptimizer: Adam\noptimizer.Adam = 'Adam'\n"
    new = "tracking.curve = True\ntracking.plots = 1\noptimizer: AdamW\noptimizer.Adam = 'Adam'\n"
    with caplog.at_level(logging.WARNING, "t5jax"):
        assert migrated_text(old) == new
        middle = "config_version = 2\n" + old.replace("reporting", "tracking")
        assert migrated_text(middle) == new
        assert migrated_text("config_version = 9\n" + new) == new
    said = [record.message.partition(": ")[2] for record in caplog.records]
    assert said == [
        "reporting is tracking, tracking.plot is tracking.curve, Adam is AdamW now",
        "tracking.plot is tracking.curve, Adam is AdamW now",
    ]


def test_a_choice_of_an_earlier_version_is_renamed_in_text_and_flags(caplog):
    old = "model.attention = 'per_example'\nworkdir = 'per_example'\n"
    with caplog.at_level(logging.WARNING, "t5jax"):
        new = migrated_text("config_version = 2\n" + old)
        flags = ["--model.attention", "per_example", "--workdir", "per_example"]
        assert migration.migrated_flags(flags)[1::2] == ["rowwise", "per_example"]
        flag = "--model.attention=per_example"
        assert migration.migrated_flags([flag]) == ["--model.attention=rowwise"]
    assert new == "model.attention = 'rowwise'\nworkdir = 'per_example'\n"
    assert migrated_text(f"config_version = {migration.VERSION}\n{old}") == old
    assert caplog.messages[0].endswith("model.attention per_example is rowwise now")


def test_flags_of_0_1_are_taken_and_named(caplog):
    flags = ["--reporting.log-every-steps", "3", "--reporting.wandb_project=x", "--train.seed", "4"]
    with caplog.at_level(logging.WARNING, "t5jax"):
        config = override(golden_run(), flags, program="t5jax train x.py")
    assert (config.tracking.log_every_steps, config.tracking.wandb_project) == (3, "x")
    assert config.train.seed == 4
    said = [record.message for record in caplog.records]
    assert said == ["the command line has names of an earlier t5jax: reporting is tracking now"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "from t5jax.config import RunConfig\n\ndef config():\n"
            "    return RunConfig(reporting=1)\n",
            r"line 4: .*reporting has been renamed: write tracking$",
        ),
        ("from t5jax.tracking import ReportingConfig\n", "line 1: .*: write TrackingConfig$"),
        ("from t5jax.reporting import ReportingConfig\n", "line 1: .*: write t5jax.tracking$"),
        ("import t5jax.training.finetuning\n", "line 1: .*: write t5jax.training.peft$"),
    ],
)
def test_a_config_file_of_0_1_is_told_the_new_name(tmp_path, text, reason):
    (tmp_path / "old.py").write_text(text)
    with pytest.raises(ConfigError, match=reason):
        load_config(str(tmp_path / "old.py"))

"""A task looked at before a run: the rows are training's, the numbers are counted once more."""

import dataclasses
import gzip
import itertools
import json

import numpy as np
import pytest
import sentencepiece

from t5jax.data import registry
from t5jax.data.config import DataConfig
from t5jax.data.inspect.mixture_preview import preview_mixture
from t5jax.data.inspect.task_preview import Lengths, preview
from t5jax.data.objectives import SpanCorruption, parse_objective
from t5jax.data.records import Row
from t5jax.data.registry import add_mixture, add_task
from t5jax.data.registry.texts import task_documents
from t5jax.data.sources import JsonLines
from t5jax.data.store.build import build_cache
from t5jax.data.store.directories import cache_directory
from t5jax.data.tasks import ExampleTask, Mixture
from t5jax.data.tasks.rates import Custom, Equal, Proportional, Scheduled
from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary, train_sentencepiece
from t5jax.errors import ConfigError, DataError
from tests.data.pipeline.loaders import open_in_order

WORDS = ["beat", "the", "eggs", "with", "sugar", "until", "they", "are", "pale", "and", "fold"]


def asked(row):
    """`ask: <question>` -> the answer."""
    yield {"inputs": f"ask: {row.text('question')}", "targets": row.text("answer")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """37 documents in two files, 23 questions of which some are long, and a task of them."""
    path, rng = tmp_path_factory.mktemp("preview"), np.random.default_rng(5)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 60))) for _ in range(37)]
    for number, part in enumerate((texts[:20], texts[20:])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in part)
        (path / f"text-{number}.jsonl").write_text(lines)
    questions = [
        {"question": " ".join(rng.choice(WORDS, 2 + n)), "answer": WORDS[n % 11][: 1 + n % 3] * n}
        for n in range(23)
    ]
    (path / "ask.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    task = ExampleTask(
        name="preview_ask",
        description="questions",
        source=lambda data: JsonLines(train_files=(str(path / "ask.jsonl"),)),
        examples=asked,
        splits=("train",),
    )
    add_task(task)
    return path


def text_data(folder, **settings) -> DataConfig:
    return DataConfig(
        mixture="jsonl_span_corruption",
        train_files=(str(folder / "text-*.jsonl"),),
        cache_dir=None,
        **{"vocabulary": ByteVocabulary(extra_ids=100), "inputs_length": 61, **settings},
    )


def ask_data(**settings) -> DataConfig:
    settings = {"inputs_length": 53, "targets_length": 19, "cache_dir": None, **settings}
    vocabulary = ByteVocabulary(extra_ids=100)
    return DataConfig(mixture="preview_ask", vocabulary=vocabulary, **settings)


def look(data: DataConfig, **options):
    return preview(registry.find_task(data.mixture, data), data, **options)


def documents(folder, name: str) -> list[dict]:
    files = sorted(folder.glob(name))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.mark.parametrize("kind", ["text", "examples", "unpacked examples"])
def test_rows_are_those_that_a_loader_gives(folder, kind):
    data = text_data(folder) if kind == "text" else ask_data(pack=kind == "examples")
    shown = look(data, num_rows=4)
    loader = open_in_order(data, "train", batch_size=shown.num_rows)[data.mixture]
    batch = loader.rows(0)
    assert loader.num_rows == shown.num_rows > len(shown.row_ids) == 4
    assert shown.row_ids[0] == 0
    assert shown.row_ids[-1] == shown.num_rows - 1
    assert batch.keys() == shown.rows.keys()
    for name, rows in batch.items():
        np.testing.assert_array_equal(rows[list(shown.row_ids)], shown.rows[name])
    for name, side in (("inputs", "encoder_input"), ("targets", "decoder_target")):
        assert shown.fill[name] == pytest.approx((batch[f"{side}_tokens"] != 0).mean())
        assert 0.1 < shown.fill[name] <= 1
    assert shown.packed == ("encoder_segment_ids" in batch) == (kind == "examples")


def test_examples_are_counted_trimmed_and_measured(folder):
    data = ask_data()
    shown, rows = look(data, num_examples=5), documents(folder, "ask.jsonl")
    texts = {
        "inputs": [f"ask: {row['question']}" for row in rows],
        "targets": [row["answer"] for row in rows],
    }
    limits = {"inputs": 53, "targets": 19}
    for name, lengths in shown.lengths.items():
        wanted = [len(text) + 1 for text in texts[name]]
        assert lengths.tokens.tolist() == wanted
        assert lengths.limit == limits[name]
        cut = sum(length > limits[name] for length in wanted)
        assert 0 < cut < 23
        assert lengths.truncated == cut / 23
        assert lengths.quantiles()[100] == max(wanted)
        assert lengths.quantiles()[50] == sorted(wanted)[11]
    for number, example in enumerate(shown.examples):
        for name, ids in (("inputs", example.inputs), ("targets", example.targets)):
            text = texts[name][number][: limits[name] - 1]
            assert ids.tolist() == [*data.vocabulary.encode(text).tolist(), 1]
            assert getattr(example, f"{name}_text") == text
        assert example.original == ()
    assert (shown.num_scanned, shown.complete, len(shown.examples)) == (23, True, 5)
    assert shown.about.input_format == "ask: <question>"
    json.dumps(shown.numbers())


# objective, and whether its inputs and targets tell what it hid
OBJECTIVES = {
    "span_corruption": True,
    "span_corruption(noise_density=0.5, mean_noise_span_length=2)": True,
    "iid_denoising": True,
    "iid_15_s_s": True,
    "bert_style": True,
    "prefix_lm": True,
    "mass_style": True,
    "deshuffling": False,
    "drop_corrupted_tokens": False,
    "language_model": False,
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_original_is_the_text_and_hides_what_the_inputs_lack(folder, objective):
    settings = {"targets_length": 61} if objective == "language_model" else {}
    data = text_data(folder, objective=objective, **settings)
    shown, vocabulary = look(data, num_examples=7), data.vocabulary
    text = "".join(row["text"] for row in documents(folder, "text-*.jsonl")).encode()
    assert len(shown.examples) == 7
    for number, example in enumerate(shown.examples):
        if not OBJECTIVES[objective]:
            assert example.original == ()
            continue
        row = text[number * shown.raw_length :][: shown.raw_length]
        ids = np.concatenate([stretch.ids for stretch in example.original])
        assert ids.tolist() == [byte + 3 for byte in row]
        seen = [stretch.ids for stretch in example.original if not stretch.hidden]
        hidden = [stretch.ids for stretch in example.original if stretch.hidden]
        assert hidden
        if objective in ("bert_style", "mass_style"):
            continue
        is_text = vocabulary.is_text(example.inputs)
        assert np.concatenate(seen).tolist() == example.inputs[is_text].tolist()
        is_text = vocabulary.is_text(example.targets)
        assert np.concatenate(hidden).tolist() == example.targets[is_text].tolist()
        found = parse_objective(objective)
        if isinstance(found, SpanCorruption):
            noise, spans = found.counts(shown.raw_length)
            assert (sum(map(len, hidden)), len(hidden)) == (noise, spans)


def test_bytes_that_are_taken_for_sentinels_are_not_guessed_at(tmp_path):
    (tmp_path / "text-0.jsonl").write_text(json.dumps({"text": "Äpfel, Öl und Übermut " * 50}))
    shown = look(text_data(tmp_path, vocabulary=ByteVocabulary()), num_examples=3)
    assert [example.original for example in shown.examples] == [(), (), ()]


def test_sentinels_and_ids_are_counted(folder):
    data = text_data(folder)
    shown = look(data)
    spans = SpanCorruption().counts(shown.raw_length)[1]
    assert shown.sentinel_counts[0] == shown.num_rows
    assert shown.sentinel_counts.tolist()[spans:] == [0] * (100 - spans)
    text = "".join(row["text"] for row in documents(folder, "text-*.jsonl"))
    assert shown.id_counts.sum() == len(text)
    assert shown.id_counts[data.vocabulary.encode("e")[0]] == text.count("e") > 100


def test_unknown_pieces_are_counted(tmp_path):
    texts = [" ".join(WORDS[n:] + WORDS[:n]) for n in range(11)] * 30
    train_sentencepiece(texts, tmp_path / "tiny.model", vocab_size=31)
    vocabulary = SentencePieceVocabulary(path=str(tmp_path / "tiny.model"), extra_ids=20)
    text = "the eggs 🦊 with sugar 🦊 and fold " * 9
    (tmp_path / "text-0.jsonl").write_text(json.dumps({"text": text}))
    shown = look(text_data(tmp_path, vocabulary=vocabulary, inputs_length=17))
    assert shown.unknown_rate == pytest.approx(18 / len(vocabulary.encode(text)))
    assert shown.unknown_rate > 0.01


def test_what_the_policy_leaves_out_is_told(tmp_path):
    lines = [json.dumps({"text": word * 30}) for word in WORDS]
    lines[4] = '{"text": '
    (tmp_path / "text-0.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"text-0\.jsonl, line 5"):
        look(text_data(tmp_path))
    shown = look(text_data(tmp_path, on_bad_record="skip", max_bad_fraction=0.2))
    assert (shown.num_scanned, shown.rejected.records) == (10, 1)
    assert "text-0.jsonl, line 5" in shown.rejected.places[0]


def test_no_more_is_read_than_asked_for(folder):
    shown = look(text_data(folder), scan=11)
    assert (shown.num_scanned, shown.complete) == (11, False)
    shown = look(text_data(folder), scan=37)
    assert (shown.num_scanned, shown.complete) == (37, True)


def test_a_config_of_a_mixture_serves_for_each_of_its_tasks(folder):
    data = text_data(folder, objective="prefix_lm", targets_length=61, modules=("json",))
    task = registry.find_task("preview_ask", data)
    shown = preview(task, data)
    assert (shown.about.name, shown.targets_length, shown.objective) == ("preview_ask", 61, None)


def test_refusals(folder):
    with pytest.raises(ConfigError, match=r"data\.train_files is empty"):
        look(
            DataConfig(mixture="jsonl_span_corruption", vocabulary=ByteVocabulary(), cache_dir=None)
        )
    with pytest.raises(ConfigError, match=r"data\.targets_length is not set"):
        look(ask_data(targets_length=None))
    with pytest.raises(DataError, match="no split 'test': choose one of"):
        look(ask_data(), split="test")
    with pytest.raises(ConfigError, match="sentinels"):
        look(text_data(folder, vocabulary=ByteVocabulary(extra_ids=2)))


def test_a_histogram_counts_everything_and_shows_the_limit():
    tokens = np.array([3, 4, 4, 7, 19, 23, 23, 41, 57] * 40 + [9_000])
    counts, edges = Lengths(tokens=tokens, limit=61).histogram(12)
    assert counts.sum() == 361
    assert edges[-1] == 9_001
    assert len(counts) <= 12
    assert edges[:-1].tolist() == list(range(0, 10 * len(counts), 10))
    assert edges[-2] <= 61
    assert counts[0] == 160
    assert Lengths(tokens=np.array([5])).histogram(12)[0].tolist() == [0, 0, 0, 0, 0, 1]


# ---- mixtures


def mixed(name: str, rate, tasks=("preview_ask", "glue_rte_v002", "c4_span_corruption")):
    mixture = add_mixture(Mixture(name=name, tasks=tasks, rate=rate))
    data = DataConfig(mixture=name, vocabulary=ByteVocabulary(), cache_dir=None)
    return preview_mixture(mixture, data)


def test_rates_that_need_no_sizes_are_known_without(folder):
    shown = mixed("preview_equal", Equal())
    assert dict(shown.sizes) == {
        "preview_ask": None,
        "glue_rte_v002": 2490,
        "c4_span_corruption": None,
    }
    assert shown.missing == ()
    assert [dict(stage.shares) for stage in shown.stages] == [dict.fromkeys(shown.sizes, 1 / 3)]


def test_rates_that_need_sizes_name_the_tasks(folder):
    shown = mixed("preview_by_size", Proportional())
    assert shown.stages == ()
    assert shown.missing == ("preview_ask", "c4_span_corruption")
    two = ("preview_ask", "c4_span_corruption")
    assert mixed("preview_none_known", Proportional(), two).missing == two
    two = ("glue_rte_v002", "glue_cola_v002")
    shown = mixed("preview_published", Proportional(), two)
    assert shown.stages[0].shares["glue_cola_v002"] == pytest.approx(8551 / (8551 + 2490))


def test_every_stage_is_shown(folder):
    two = ("preview_ask", "glue_rte_v002")
    later = Custom(weights={"preview_ask": 3.0, "glue_rte_v002": 1.0})
    shown = mixed("preview_stages", Scheduled(stages=((0, Equal()), (170, later))), two)
    assert [(s.from_step, s.shares["preview_ask"]) for s in shown.stages] == [(0, 0.5), (170, 0.75)]


def test_a_store_says_how_many_there_are(folder, tmp_path):
    data = ask_data(cache_dir=str(tmp_path))
    texts = task_documents(registry.find_task("preview_ask", data), data)
    directory = cache_directory(tmp_path, "preview_ask", "train")
    build_cache(texts, "train", directory, vocabulary=data.vocabulary)
    mixture = add_mixture(
        Mixture(name="preview_cached", tasks=("preview_ask", "glue_rte_v002"), rate=Proportional())
    )
    shown = preview_mixture(mixture, data)
    assert shown.sizes["preview_ask"] == 23
    assert shown.stages[0].shares["preview_ask"] == pytest.approx(23 / (23 + 2490))


def test_real_questions_are_measured_as_the_plain_library_measures_them(real_data, tmp_path):
    """BoolQ and T5's vocabulary: lengths, truncation and unknown pieces, counted independently."""
    (tmp_path / "superglue").symlink_to(real_data / "superglue")
    path = str(real_data / "tokenizer/t5/spiece.model")
    data = DataConfig(
        mixture="super_glue_boolq_v102",
        vocabulary=SentencePieceVocabulary(path=path),
        datasets_dir=str(tmp_path),
        inputs_length=256,
        targets_length=62,
        cache_dir=None,
    )
    shown = look(data, split="validation", scan=700)
    with gzip.open(real_data / "superglue/BoolQ/validation.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in itertools.islice(file, 700)]
    plain = sentencepiece.SentencePieceProcessor(model_file=path)
    inputs = [
        plain.encode(f"boolq passage: {r['passage']} question: {r['question']}") for r in rows
    ]
    targets = [plain.encode(str(row["label"])) for row in rows]
    lengths = [len(ids) + 1 for ids in inputs]
    assert shown.lengths["inputs"].tokens.tolist() == lengths
    truncated = sum(length > 256 for length in lengths) / 700
    assert shown.lengths["inputs"].truncated == truncated
    assert 0.05 < truncated < 0.2
    ids = [token for text in (*inputs, *targets) for token in text]
    assert shown.unknown_rate == pytest.approx(ids.count(2) / len(ids))
    assert shown.fill["inputs"] > 0.9
    assert (shown.num_scanned, shown.complete, shown.splits) == (
        700,
        False,
        ("train", "validation"),
    )


@pytest.mark.parametrize("splits", [("validation",), ("test",), ("test", "validation"), ("dev",)])
def test_without_a_split_the_one_that_is_there_is_shown(tmp_path, splits):
    """A task that is only evaluated has nothing to train on."""
    (tmp_path / "a.jsonl").write_text('{"q": "in", "a": "out"}\n')

    @dataclasses.dataclass
    class Evaluated:
        def splits(self):
            return splits

        def shards(self, split):
            return [str(tmp_path / "a.jsonl")]

        def records(self, split, shard):
            yield Row({"q": f"of {split}", "a": "out"}, f"{shard}, line 1")

    task = add_task(
        ExampleTask(
            name="only_evaluated",
            description="",
            source=lambda data: Evaluated(),
            examples=lambda row: [{"inputs": row["q"], "targets": row["a"]}],
            splits=splits,
        )
    )
    data = DataConfig(
        mixture=task.name,
        vocabulary=ByteVocabulary(extra_ids=100),
        cache_dir=None,
        inputs_length=20,
        targets_length=20,
    )
    shown = preview(task, data)
    assert shown.split == ("validation" if "validation" in splits else splits[0])
    assert shown.examples[0].inputs_text == f"of {shown.split}"
    with pytest.raises(DataError, match="has no split 'train': choose one of"):
        preview(task, data, split="train")

"""Directories in the layouts of published models: their vocabularies have their ids."""

import json
import pathlib

import numpy as np
import pytest
import sentencepiece

from t5jax.convert.tokenizer_files import unigram_json
from t5jax.convert.tokenizers import read_vocabulary, tokenizer_notes, write_tokenizer
from t5jax.data.vocabularies import (
    HuggingFaceVocabulary,
    SentencePieceVocabulary,
    save_vocabulary,
)
from t5jax.data.vocabularies.source_check import check_against_source, probe_texts
from t5jax.errors import DataError
from tests.convert import foreign_tokenizers as foreign
from tests.data.vocabularies.prose import SENTENCES

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture(scope="module")
def layouts(tmp_path_factory) -> dict[str, pathlib.Path]:
    root = tmp_path_factory.mktemp("layouts")
    return {name: make(root / name) for name, make in foreign.LAYOUTS.items()}


@pytest.fixture(scope="module")
def vocabularies(layouts):
    return {name: read_vocabulary(folder) for name, folder in layouts.items()}


def ids(vocabulary) -> tuple[int, int, int]:
    return vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id


@pytest.mark.parametrize(
    ("name", "special", "first", "count"),
    [
        ("madlad", (1, 2, 0), None, 0),
        ("madlad, pads with <s>", (1, 2, 0), None, 0),
        ("pile_t5", (0, 2, 0), 369, 10),
        ("pile_t5, pads, upwards", (360, 2, 0), 361, 10),
        ("codet5", (0, 2, 3), 339, 10),
        ("aya", (0, 1, 2), 82, 13),
        ("flan_ul2", (0, 1, 2), 169, 100),
        ("resized", (0, 1, 2), 79, 10),
    ],
)
def test_ids_are_the_layouts(vocabularies, name, special, first, count):
    vocabulary = vocabularies[name]
    assert ids(vocabulary) == special
    assert vocabulary.num_sentinels == count
    if count:
        assert vocabulary.sentinel_id(0) == first
    for sentence in SENTENCES:
        encoded = vocabulary.encode(sentence)
        assert vocabulary.decode([special[0], *encoded, special[1]]) == sentence
        assert vocabulary.is_text(encoded).all()


@pytest.mark.parametrize("name", foreign.LAYOUTS)
def test_a_copy_and_a_written_directory_are_the_same_vocabulary(
    vocabularies, layouts, name, tmp_path
):
    vocabulary = vocabularies[name]
    copy = save_vocabulary(vocabulary, tmp_path / "run")
    write_tokenizer(vocabulary, tmp_path)
    back = read_vocabulary(tmp_path)
    for other in (copy, back):
        assert type(other) is type(vocabulary)
        assert other.fingerprint == vocabulary.fingerprint
        assert (ids(other), other.sentinel_ids) == (ids(vocabulary), vocabulary.sentinel_ids)
        assert other.vocab_size == vocabulary.vocab_size
        assert other.added_tokens == vocabulary.added_tokens
        for text in probe_texts(vocabulary):
            assert other.encode(text).tolist() == vocabulary.encode(text).tolist()
    assert check_against_source(vocabulary, layouts[name]) >= 14


def test_own_tokens_both_ways(vocabularies):
    """What stands between two tokens is a text of its own (field case A1c)."""
    vocabulary = vocabularies["resized"]
    plain = sentencepiece.SentencePieceProcessor(model_proto=foreign.t5_model()).encode
    text = "the mill {river}\nand <sep> a<sep>b"
    expected = [
        *plain("the mill"), 80, *plain("river"), 81, 82, *plain("and"), 83, *plain("a"), 83,
        *plain("b"),
    ]  # fmt: skip
    for sentinels in (True, False):
        assert vocabulary.encode(text, sentinels=sentinels).tolist() == expected
    assert vocabulary.decode(expected) == "the mill{ river}\n and<sep> a<sep> b"
    for number, content in enumerate(foreign.OWN, 80):
        assert vocabulary.decode([number]) == content
        assert vocabulary.encode(content).tolist() == [number]
    assert vocabulary.is_text(np.arange(80, 84)).all()
    assert vocabulary.vocab_size == 84
    beyond = vocabulary.decode([84])
    assert beyond == vocabulary.decode([2]) != ""


def test_only_a_beginning_is_one_where_legacy_is_false(vocabularies):
    vocabulary = vocabularies["resized, legacy false"]
    plain = sentencepiece.SentencePieceProcessor(model_proto=foreign.t5_model()).encode
    inside = plain("x the")[len(plain("x")) :]
    assert vocabulary.encode("mill{ the").tolist() == [*plain("mill"), 80, *inside]
    glued = vocabulary.encode("{the").tolist()[1:]
    assert glued != inside
    assert vocabulary.decode([80, *glued]) == "{the"


def test_sentinels_beside_own_tokens(vocabularies):
    vocabulary = vocabularies["resized"]
    plain = sentencepiece.SentencePieceProcessor(model_proto=foreign.t5_model()).encode
    text = "<extra_id_0> the{<extra_id_1>} mill <extra_id_9>"
    expected = [79, *plain("the"), 80, 78, 81, *plain("mill"), 70]
    assert vocabulary.encode(text).tolist() == expected
    assert not set(vocabulary.encode(text, sentinels=False).tolist()) & set(range(70, 80))


@pytest.mark.parametrize(
    ("flags", "text", "expected"),
    [
        ({"lstrip": True}, "a  <m> b", ["a", "<m>", " b"]),
        ({"rstrip": True}, "a <m>  b", ["a ", "<m>", "b"]),
        ({"single_word": True}, "a<m>b <m> c", ["a<m>b ", "<m>", " c"]),
        ({}, "a<m><m>", ["a", "<m>", "<m>"]),
    ],
)
def test_flags_of_added_tokens(tmp_path, flags, text, expected):
    folder = foreign.resized(tmp_path, own={"<m>": flags})
    vocabulary = read_vocabulary(folder)
    plain = sentencepiece.SentencePieceProcessor(model_proto=foreign.t5_model()).encode
    wanted = []
    for part in expected:
        wanted += [80] if part == "<m>" else plain(part)
    assert vocabulary.encode(text).tolist() == wanted


def test_bytes_spell_what_has_no_piece(vocabularies):
    vocabulary = vocabularies["pile_t5"]
    for text in ("日本 é", "a  b {\n}", "<unk> and </s>", "🙂"):
        encoded = vocabulary.encode(text)
        assert vocabulary.decode(encoded) == text
        assert vocabulary.unk_id not in encoded
    assert vocabulary.encode("<s>the").tolist()[0] == 1


def test_byte_level_bpe_is_the_package(vocabularies, layouts):
    folder, vocabulary = layouts["codet5"], vocabularies["codet5"]
    package = tokenizers.ByteLevelBPETokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt")
    )
    for text in (*SENTENCES, "日本 é\n\t{x}", " two  spaces"):
        assert vocabulary.encode(text).tolist() == package.encode(text).ids
        assert vocabulary.decode(vocabulary.encode(text)) == text
    the = package.encode("the").ids
    mill = package.encode(" mill").ids
    assert vocabulary.encode("the <extra_id_0> mill").tolist() == [*the, 339, *mill]
    assert vocabulary.encode("the <mask> mill").tolist() == [*the, 4, *mill]
    assert (
        vocabulary.encode("</s>").tolist()
        == package.encode(
            "</",
        ).ids
        + package.encode("s>").ids
    )
    (note,) = tokenizer_notes(folder)
    assert "puts <s> before every text" in note


def test_the_model_file_of_a_directory_has_its_added_tokens(layouts, vocabularies):
    file = SentencePieceVocabulary(path=str(layouts["resized"] / "spiece.model"))
    assert file.fingerprint == vocabularies["resized"].fingerprint
    assert file.encode("{").tolist() == [80]


def test_old_files_have_no_ids_of_sentinels(tmp_path):
    """Before transformers 4.34 only the user's tokens have ids, in added_tokens.json."""
    folder = foreign.flan_ul2(tmp_path)
    (folder / "added_tokens.json").write_text(json.dumps({"{": 170, "<sep>": 171}))
    vocabulary = read_vocabulary(folder)
    assert (vocabulary.sentinel_id(0), vocabulary.sentinel_id(99)) == (169, 70)
    assert vocabulary.encode("{<sep>").tolist() == [170, 171]


def test_fast_files_alone(tmp_path, vocabularies):
    """tokenizer.json without the model's file (field case A1d): the same ids."""
    slow = vocabularies["resized"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(unigram_json(slow)))
    fast = read_vocabulary(tmp_path)
    assert isinstance(fast, HuggingFaceVocabulary)
    assert fast.sentinel_ids == slow.sentinel_ids
    for text in probe_texts(slow):
        assert fast.encode(text).tolist() == slow.encode(text).tolist(), text
        assert fast.decode(slow.encode(text)) == slow.decode(slow.encode(text))


def test_fast_files_of_a_model_without_sentinels(tmp_path, vocabularies):
    """MADLAD's as transformers 5 writes them: its unk_id is always 2, here EOS."""
    slow = vocabularies["madlad"]
    record = unigram_json(slow)
    record["model"]["unk_id"] = 2
    names = foreign.special_tokens()
    settings = {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "unk_id": 2, **names}
    foreign.write(tmp_path, {"tokenizer.json": record, "tokenizer_config.json": settings})
    fast = read_vocabulary(tmp_path)
    assert ids(fast) == ids(slow) == (1, 2, 0)
    assert fast.num_sentinels == 0
    copy = save_vocabulary(fast, tmp_path / "run")
    assert (ids(copy), copy.fingerprint) == (ids(fast), fast.fingerprint)
    for text in ("the river", "日本", "<2de> a mill"):
        assert copy.encode(text).tolist() == fast.encode(text).tolist()
        assert fast.encode(text)[-3:].tolist() == slow.encode(text)[-3:].tolist()


def test_sentinels_that_are_pieces_of_the_fast_file(tmp_path):
    """mT5's as transformers 4 writes them: the pieces themselves are added tokens."""
    folder = foreign.aya(tmp_path)
    added = {str(70 + n): foreign.token(f"▁<extra_id_{12 - n}>") for n in range(13)}
    added["83"] = foreign.token("{", special=False)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    foreign.write(folder, {"tokenizer_config.json": {**settings, "added_tokens_decoder": added}})
    vocabulary = read_vocabulary(folder)
    assert vocabulary.sentinel_ids == tuple(range(82, 69, -1))
    assert [token.content for token in vocabulary.added_tokens] == ["{"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_lower_case": True}, "do_lower_case = True may change the ids"),
        ({"add_prefix_space": False}, "add_prefix_space = False"),
        ({"tokenizer_class": "XLMRobertaTokenizer"}, "how tokenizer_class 'XLMRobertaTokenizer'"),
        ({"sp_model_kwargs": {"enable_sampling": True}}, "sp_model_kwargs"),
        ({"extra_ids": "ten"}, "extra_ids is 'ten'"),
        ({"extra_ids": -3}, "extra_ids is -3"),
        ({"extra_ids": 57}, r"has extra_ids = 57, its files number \d+ sentinels"),
        ({"pad_token": "</s>"}, "pad_token is '<pad>' in special_tokens_map"),
        ({"added_tokens_decoder": {"5": foreign.token("{")}}, r"'\{' has two ids"),
        ({"added_tokens_decoder": {"5": foreign.token("<")}}, "'<' has id 5, where the model has"),
    ],
)
def test_settings_that_change_ids_are_refused(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        read_vocabulary(foreign.resized(tmp_path, **changes))


def test_files_that_contradict_each_other(tmp_path):
    folder = foreign.resized(tmp_path)
    (folder / "added_tokens.json").write_text(json.dumps({"[": 80}))
    with pytest.raises(DataError, match=r"id 80 is both '\[' and '\{'|id 80 is both '\{' and '\['"):
        read_vocabulary(folder)


def test_files_that_name_two_ends(tmp_path):
    folder = foreign.resized(tmp_path)
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "{"}))
    with pytest.raises(DataError, match=r"eos_token is '\{' in special_tokens_map.json and '</s>'"):
        read_vocabulary(folder)
    (folder / "special_tokens_map.json").write_text("[1]")
    with pytest.raises(DataError, match=r"special_tokens_map\.json holds no settings, but a list"):
        read_vocabulary(folder)
    folder = foreign.resized(tmp_path / "one", pad_token="</s>")
    (folder / "special_tokens_map.json").unlink()
    with pytest.raises(DataError, match="the end of a sequence and padding have one id, 1"):
        read_vocabulary(folder)


def test_a_difference_from_the_source_is_named(layouts, vocabularies):
    """The vocabulary of one directory against the files of another."""
    with pytest.raises(DataError, match=r"'translate English .*' is \[.*\] here, and \["):
        check_against_source(vocabularies["flan_ul2"], layouts["madlad"])


# ---- field case A1c on T5's own file, and transformers itself

A1C = "f(x) {y}\nz"
A1C_IDS = [3, 89, 599, 226, 61, 32100, 3, 63, 32101, 32102, 3, 172]


def check_field_case(vocabulary):
    assert vocabulary.encode(A1C).tolist() == A1C_IDS
    assert vocabulary.vocab_size == 32104
    assert [vocabulary.decode([n]) for n in range(32100, 32104)] == ["{", "}", "\n", "<sep>"]
    assert vocabulary.encode(vocabulary.decode(A1C_IDS)).tolist() == A1C_IDS
    assert vocabulary.sentinel_id(0) == 32099


def test_added_tokens_on_t5s_own_file(tmp_path, real_data):
    model = (real_data / "tokenizer/t5/spiece.model").read_bytes()
    check_field_case(read_vocabulary(foreign.resized(tmp_path, model=model, count=100)))


def with_sentinels_as_pieces(folder: pathlib.Path) -> HuggingFaceVocabulary:
    """mT5's tokenizer.json as transformers 5 saves it: `▁<extra_id_N>` are pieces of the model."""
    record = unigram_json(read_vocabulary(foreign.aya(folder / "aya")))
    (folder / "tokenizer.json").write_text(json.dumps(record))
    return HuggingFaceVocabulary(path=str(folder / "tokenizer.json"))


def test_sentinels_that_are_pieces_are_not_listed_as_tokens_of_their_own(tmp_path):
    """transformers would add each once more, behind all others."""
    vocabulary = with_sentinels_as_pieces(tmp_path)
    assert vocabulary.num_sentinels == 13
    (tmp_path / "back").mkdir()
    write_tokenizer(vocabulary, tmp_path / "back")
    settings = json.loads((tmp_path / "back/tokenizer_config.json").read_text())
    assert settings["additional_special_tokens"] == []
    back = read_vocabulary(tmp_path / "back")
    assert back.sentinel_ids == vocabulary.sentinel_ids
    assert back.vocab_size == vocabulary.vocab_size


@pytest.mark.parity
def test_transformers_adds_no_sentinels_to_those_that_are_pieces(tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the `parity` extra")
    vocabulary = with_sentinels_as_pieces(tmp_path)
    (tmp_path / "back").mkdir()
    write_tokenizer(vocabulary, tmp_path / "back")
    (tmp_path / "back/config.json").write_text(json.dumps({"model_type": "mt5"}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    assert len(theirs) == vocabulary.vocab_size
    text = "The <extra_id_0> mill <extra_id_1>"
    assert theirs(text, add_special_tokens=False).input_ids == vocabulary.encode(text).tolist()


@pytest.mark.parity
def test_a_directory_of_transformers(tmp_path, real_data):
    """What transformers saves after add_tokens. Its own tokenizer finds the newline, which the
    normaliser makes a space, in every space; a text's newlines are found here."""
    transformers = pytest.importorskip("transformers", reason="needs the `parity` extra")
    tokenizer = transformers.AutoTokenizer.from_pretrained(real_data / "tokenizer/t5")
    tokenizer.add_tokens(["{", "}", "\n"])
    listed = [f"<extra_id_{i}>" for i in range(100)]
    tokenizer.add_special_tokens({"additional_special_tokens": [*listed, "<sep>"]})
    tokenizer.save_pretrained(tmp_path)
    vocabulary = read_vocabulary(tmp_path)
    check_field_case(vocabulary)
    write_tokenizer(vocabulary, tmp_path)
    check_field_case(read_vocabulary(tmp_path))


@pytest.mark.parity
@pytest.mark.parametrize("name", foreign.LAYOUTS)
def test_transformers_reads_what_is_written(vocabularies, name, tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the `parity` extra")
    vocabulary = vocabularies[name]
    write_tokenizer(vocabulary, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == ids(vocabulary)
    assert len(theirs) == vocabulary.vocab_size
    for text in probe_texts(vocabulary):
        found = theirs(text, add_special_tokens=False).input_ids
        assert found == vocabulary.encode(text).tolist(), text
    for number in (*vocabulary.sentinel_ids, *(t.id for t in vocabulary.added_tokens)):
        assert theirs.decode([number]).strip() == vocabulary.decode([number]).strip()


@pytest.mark.parity
@pytest.mark.parametrize("name", ["aya", "flan_ul2"])
def test_transformers_reads_the_source_as_we_do(vocabularies, layouts, name):
    transformers = pytest.importorskip("transformers", reason="needs the `parity` extra")
    theirs = transformers.AutoTokenizer.from_pretrained(layouts[name])
    for text in probe_texts(vocabularies[name]):
        found = theirs(text, add_special_tokens=False).input_ids
        assert found == vocabularies[name].encode(text).tolist(), text

"""tokenizer.json of T5 against T5's SentencePiece file, and what must be refused."""

import json
import pickle

import numpy as np
import pytest
from prose import SENTENCES

from t5jax.data.vocabularies import HuggingFaceVocabulary
from t5jax.data.vocabularies.source_check import check_against_source
from t5jax.errors import DataError

tokenizers = pytest.importorskip("tokenizers")
SPECIAL = ["<pad>", "</s>", "<unk>"]
TEXTS = [
    "a <extra_id_0> b <extra_id_99>.",
    "x <extra_id_1>ly and\n<extra_id_2>\nend",
    "jel<extra_id_0>",
    "<extra_id_0> <extra_id_1> c <extra_id_100>",
    "<extra_id_3><extra_id_4>",
    "a <pad> b </s> c <unk>",
    "Ａ ﬁ ½ “quoted”\u00a0é\t文",
    "x \ud800 y",
    "",
]


@pytest.fixture(scope="module")
def t5_json(real_data):
    return HuggingFaceVocabulary(path=str(real_data / "tokenizer/t5/tokenizer.json"))


@pytest.mark.slow
def test_same_ids_as_sentencepiece(t5_json, t5, recorded, c4_texts):
    assert t5_json.vocab_size == t5.vocab_size == 32100
    assert (t5_json.num_sentinels, t5_json.first_sentinel_id) == (100, 32000)
    assert len(recorded) == 36
    for record in recorded:
        assert t5_json.encode(record["text"], sentinels=False).tolist() == record["ids"]
        assert t5_json.decode(record["ids"]) == record["decoded"]
    for text in TEXTS + c4_texts[:600]:
        for sentinels in (True, False):
            ids = t5_json.encode(text, sentinels=sentinels)
            assert ids.dtype == np.int32
            assert ids.tolist() == t5.encode(text, sentinels=sentinels).tolist(), text
            assert t5_json.decode(ids) == t5.decode(ids)


def test_decode_as_sentencepiece(t5_json, t5):
    the, course = t5.encode("The course")
    for ids in ([the, 32099, course, 0, 0, 32098, 1, 0], [the, 32127, -1, 5], [the, 1, course, 2]):
        assert t5_json.decode(ids) == t5.decode(ids)


def test_record_and_pickle_round_trip(t5_json, tmp_path):
    copy = tmp_path / t5_json.file_name
    copy.write_bytes(t5_json.file_bytes())
    assert HuggingFaceVocabulary(path=str(copy)).fingerprint == t5_json.fingerprint
    clone = pickle.loads(pickle.dumps(t5_json))
    assert clone == t5_json
    assert clone.encode("a river").tolist() == t5_json.encode("a river").tolist()
    wrong = HuggingFaceVocabulary(path=t5_json.path, extra_ids=99)
    with pytest.raises(DataError, match="has 100 sentinels, not extra_ids=99"):
        wrong.encode("x")


def trained(path, *, special, on_top=(), model="BPE", truncation=None) -> HuggingFaceVocabulary:
    """A tokenizer.json as `tokenizers` trains and saves it."""
    kinds = {
        "BPE": (tokenizers.models.BPE(unk_token="<unk>"), tokenizers.trainers.BpeTrainer),
        "Unigram": (tokenizers.models.Unigram(), tokenizers.trainers.UnigramTrainer),
        "WordLevel": (
            tokenizers.models.WordLevel(unk_token="<unk>"), tokenizers.trainers.WordLevelTrainer
        ),
    }  # fmt: skip
    empty, trainer = kinds[model]
    more = {"unk_token": "<unk>"} if model == "Unigram" else {}
    tokenizer = tokenizers.Tokenizer(empty)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    tokenizer.train_from_iterator(
        SENTENCES * 3,
        trainer(vocab_size=97, special_tokens=list(special), show_progress=False, **more),
    )
    tokenizer.add_special_tokens(list(on_top))
    if truncation:
        tokenizer.enable_truncation(truncation)
        tokenizer.enable_padding(length=11)
    tokenizer.save(str(path))
    return HuggingFaceVocabulary(path=str(path))


def sentinels(indices) -> list[str]:
    return [f"<extra_id_{i}>" for i in indices]


@pytest.mark.parametrize("model", ["BPE", "Unigram"])
def test_a_trained_tokenizer(model, tmp_path):
    """Sentinels that are beside the model, not in it; truncation and padding have no effect."""
    path = tmp_path / "own.json"
    vocabulary = trained(
        path, special=SPECIAL, on_top=sentinels(range(6, -1, -1)), model=model, truncation=5
    )
    size = vocabulary.vocab_size
    assert (vocabulary.num_sentinels, vocabulary.sentinel_id(0)) == (7, size - 1)
    assert size == json.loads(path.read_text())["added_tokens"][-1]["id"] + 1
    for sentence in SENTENCES:
        ids = vocabulary.encode(sentence)
        assert len(ids) > 11
        assert vocabulary.decode(ids) == sentence
        assert vocabulary.is_text(ids).all()
    ids = vocabulary.encode("the <extra_id_6> mill <extra_id_0>")
    assert np.flatnonzero(~vocabulary.is_text(ids)).size == 2
    assert ids[-1] == size - 1
    assert size - 7 in ids
    for text in ("the <pad> mill </s>", "the <extra_id_6> mill"):
        assert vocabulary.is_text(vocabulary.encode(text, sentinels=False)).all()
    assert vocabulary.encode("<extra_id_7>").max() < size - 7, "there is no such sentinel"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"special": SPECIAL}, "has no sentinels <extra_id_0>"),
        ({"special": SPECIAL, "on_top": sentinels([3, 1, 0])}, "<extra_id_2> is missing"),
        (
            {"special": ["<unk>", "<pad>"], "on_top": sentinels([0])},
            r"\(1, None, 0\), T5 needs each",
        ),
        (
            {"special": SPECIAL, "on_top": sentinels([1, 0]), "model": "WordLevel"},
            "is a WordLevel model: Unigram and BPE are read",
        ),
    ],
)
def test_what_is_refused(tmp_path, settings, message):
    with pytest.raises(DataError, match=message):
        trained(tmp_path / "own.json", **settings).encode("x")


@pytest.mark.parametrize("model", ["BPE", "Unigram"])
@pytest.mark.parametrize(
    ("special", "ids"),
    [
        (["<unk>", "<pad>", "</s>"], (1, 2, 0)),
        (["<pad>", "<s>", "</s>", "<unk>", "<mask>"], (0, 2, 3)),
        ([*SPECIAL, *sentinels(range(4))], (0, 1, 2)),
    ],
)
def test_own_special_ids(tmp_path, model, special, ids):
    """MADLAD's order, CodeT5's, and sentinels in front, upwards."""
    on_top = () if "<extra_id_0>" in special else sentinels([1, 2, 0])
    vocabulary = trained(tmp_path / "own.json", special=special, on_top=on_top, model=model)
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == ids
    theirs = tokenizers.Tokenizer.from_file(vocabulary.path)
    assert vocabulary.vocab_size == theirs.get_vocab_size()
    for index in range(vocabulary.num_sentinels):
        number = theirs.token_to_id(f"<extra_id_{index}>")
        assert vocabulary.sentinel_id(index) == number
        assert vocabulary.encode(f"the <extra_id_{index}>")[-1] == number
    text = "the <unk> mill </s> and <pad>"
    assert not set(vocabulary.encode(text).tolist()) & {ids[0], ids[1]}
    if "<mask>" in special:
        assert theirs.token_to_id("<mask>") in vocabulary.encode("the <mask> mill")
    for sentence in SENTENCES:
        plain = vocabulary.encode(sentence)
        assert plain.tolist() == theirs.encode(sentence, add_special_tokens=False).ids
        assert vocabulary.decode([ids[0], *plain, ids[1]]) == sentence
    assert vocabulary.is_text(np.array(ids)).tolist() == [False, False, True]


def added(names: list[str], first: int) -> list[dict]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [{"id": first + n, "content": c, **flags, "special": True} for n, c in enumerate(names)]


MARK = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


def unigram(path, own=(), *, model=(), **changes) -> HuggingFaceVocabulary:
    """A tokenizer.json of a few pieces, the own tokens and four sentinels behind them."""
    pieces = [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", -9.0], ["▁", -2.0], ["a", -2.0], ["b", -2.0]]
    record = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [*added(SPECIAL, 0), *added([*own, *sentinels([3, 2, 1, 0])], 8)],
        "pre_tokenizer": MARK, "post_processor": None, "decoder": MARK,
        "model": {
            "type": "Unigram", "unk_id": 2, "byte_fallback": False,
            "vocab": [*pieces, ["▁a", -1.0], ["▁b", -1.0]], **dict(model),
        },
        **changes,
    }  # fmt: skip
    path.write_text(json.dumps(record))
    return HuggingFaceVocabulary(path=str(path))


def source_ids(vocabulary, text: str) -> list[int]:
    tokenizer = tokenizers.Tokenizer.from_file(vocabulary.path)
    return tokenizer.encode(text, add_special_tokens=False).ids


def test_own_token_below_the_sentinels_of_a_unigram_file(tmp_path):
    """Field case A1a: added tokens keep the file's ids, in any order."""
    vocabulary = unigram(tmp_path / "tokenizer.json", ["<sep>"])
    assert vocabulary.sentinel_ids == (12, 11, 10, 9)
    assert vocabulary.encode("<extra_id_0> b").tolist() == [12, 7]
    for sentinels_too in (True, False):
        assert vocabulary.encode("a<sep>b", sentinels=sentinels_too).tolist() == [6, 8, 7]
    assert vocabulary.decode([6, 8, 7, 1, 0]) == "a<sep> b"
    assert vocabulary.decode([12, 7]) == "<extra_id_0> b"
    assert vocabulary.is_text(np.arange(13)).tolist() == [False] * 2 + [True] * 7 + [False] * 4


WORDS = {"type": "WhitespaceSplit"}
FIRST = MARK | {"prepend_scheme": "first"}


@pytest.mark.parametrize(
    "changes",
    [
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [WORDS, FIRST]}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": ""}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Punctuation", "behavior": "Isolated"}, MARK]}},
        {"pre_tokenizer": None},
        {"added_tokens": [
            *added(SPECIAL, 0),
            *({**token, "rstrip": True} for token in added(sentinels([3, 2, 1, 0]), 8)),
        ], "pre_tokenizer": FIRST},
    ],
    ids=["words-then-marks", "no-spaces", "punctuation", "no-marks", "rstrip"],
)  # fmt: skip
def test_sentinels_that_no_piece_would_be_found_as(changes, tmp_path):
    """Where the file's treatment of texts leaves no word mark before a sentinel in the middle of a
    text, the sentinel is the added token that the file says; it was spelled out there."""
    vocabulary = unigram(tmp_path / "tokenizer.json", **changes)
    for text in ("a <extra_id_0> b", "<extra_id_3> a", "a b<extra_id_1>", "a <extra_id_2> <pa"):
        assert vocabulary.encode(text).tolist() == source_ids(vocabulary, text)
    assert check_against_source(vocabulary, tmp_path) > 14
    assert set(vocabulary.encode("a <extra_id_0> b").tolist()) >= {vocabulary.sentinel_id(0)}
    for text in ("a </s>", "</s>", "<pad>", "<extra_id_0>", "a <extra_id_1> b"):
        assert vocabulary.is_text(vocabulary.encode(text, sentinels=False)).all(), text


@pytest.mark.parametrize("text", ["a <ORG> b", "a <org> b", "<oRg><ORG>", "a", "A <b>"])
def test_a_token_that_changes_in_case_is_found_in_any(text, tmp_path):
    """An added token that is looked for after normalisation, and only in that a lowercasing file
    would change it."""
    tokens = [*added(SPECIAL, 0), {**added(["<ORG>"], 8)[0], "normalized": True}]
    tokens += added(sentinels([3, 2, 1, 0]), 9)
    vocabulary = unigram(
        tmp_path / "tokenizer.json", normalizer={"type": "Lowercase"}, added_tokens=tokens
    )
    assert vocabulary.encode(text).tolist() == source_ids(vocabulary, text)
    assert check_against_source(vocabulary, tmp_path) > 14
    assert (8 in vocabulary.encode(text)) == ("org" in text.lower())


def test_a_unigram_file_that_names_no_unknown_piece(tmp_path):
    """`tokenizers` raises for a text that needs one."""
    vocabulary = unigram(tmp_path / "tokenizer.json", model={"unk_id": None})
    assert vocabulary.encode("a zz b").tolist() == [6, 3, 2, 7]
    copy = tmp_path / "copy.json"
    copy.write_bytes(vocabulary.file_bytes())
    assert HuggingFaceVocabulary(path=str(copy)).fingerprint == vocabulary.fingerprint


def test_the_end_stands_before_a_languages_token(tmp_path):
    ends = [{"SpecialToken": {"id": token, "type_id": 0}} for token in ("</s>", "<2de>")]
    processor = {
        "type": "TemplateProcessing", "pair": [],
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, *ends],
        "special_tokens": {
            token: {"id": token, "ids": [n], "tokens": [token]}
            for token, n in (("</s>", 1), ("<2de>", 8))
        },
    }  # fmt: skip
    vocabulary = unigram(tmp_path / "tokenizer.json", ["<2de>"], post_processor=processor)
    assert (vocabulary.eos_id, vocabulary.encode("<2de> a")[0]) == (1, 8)


def test_ids_that_change_from_call_to_call_are_refused(tmp_path):
    vocabulary = trained(tmp_path / "a.json", special=SPECIAL, on_top=sentinels([1, 0]))
    record = json.loads((tmp_path / "a.json").read_text())
    record["model"]["dropout"] = 0.1
    (tmp_path / "b.json").write_text(json.dumps(record))
    assert vocabulary.encode("the mill").size
    with pytest.raises(DataError, match=r"has dropout = 0\.1, with which a text gets other ids"):
        HuggingFaceVocabulary(path=str(tmp_path / "b.json")).encode("x")


def test_words_that_are_looked_up_whole(tmp_path):
    """`ignore_merges` finds `</s>` in the model's table without a merge."""
    trained(tmp_path / "a.json", special=SPECIAL, on_top=sentinels([1, 0]))
    record = json.loads((tmp_path / "a.json").read_text())
    record["model"]["ignore_merges"], record["pre_tokenizer"] = True, WORDS
    (tmp_path / "b.json").write_text(json.dumps(record))
    vocabulary = HuggingFaceVocabulary(path=str(tmp_path / "b.json"))
    for text in ("</s>", "a <pad> b", "<extra_id_0>"):
        assert vocabulary.is_text(vocabulary.encode(text, sentinels=False)).all()
    assert vocabulary.encode("a river").tolist() == source_ids(vocabulary, "a river")


def test_own_token_of_a_byte_level_file(tmp_path):
    """Field case A1b: only padding, EOS, unknown and sentinels are text in a document."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    names = {name: n for n, name in enumerate([*SPECIAL, *alphabet])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(names, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([*SPECIAL, "<sep>", *sentinels([3, 2, 1, 0])])
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    vocabulary = HuggingFaceVocabulary(path=str(path))
    assert vocabulary.encode("a<sep>b", sentinels=False).tolist() == [67, 259, 68]
    assert vocabulary.sentinel_ids == (263, 262, 261, 260)
    assert vocabulary.encode("a<extra_id_3>b").tolist() == [67, 260, 68]
    assert vocabulary.encode("<pad></s><unk><extra_id_0>", sentinels=False).size == 5 + 4 + 5 + 12
    assert vocabulary.decode([67, 259, 263, 68]) == "a<sep><extra_id_0>b"


def test_ids_that_the_package_would_number_otherwise(tmp_path):
    tokenizer = trained(tmp_path / "a.json", special=SPECIAL, on_top=sentinels([1, 0]))
    record = json.loads((tmp_path / "a.json").read_text())
    record["added_tokens"][-1]["id"] += 5
    (tmp_path / "b.json").write_text(json.dumps(record))
    assert tokenizer.num_sentinels == 2
    with pytest.raises(DataError, match="with gaps"):
        HuggingFaceVocabulary(path=str(tmp_path / "b.json")).encode("x")


def test_bad_files(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(DataError, match=r"tokenizer\.json.*cannot be read"):
        HuggingFaceVocabulary(path=str(path)).encode("x")
    for content in (b"", b"{}", b'{"model": 3}', b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"is not a tokenizer\.json"):
            HuggingFaceVocabulary(path=str(path)).encode("x")

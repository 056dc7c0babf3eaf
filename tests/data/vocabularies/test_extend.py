"""Extended vocabularies: old ids keep their meaning, new ones are found, sentinels stay on top."""

import itertools
import json

import numpy as np
import pytest
from prose import SENTENCES

from t5jax.data.vocabularies import (
    Extension,
    SentencePieceVocabulary,
    extend_vocabulary,
    learn_pieces,
)
from t5jax.data.vocabularies.model_file import (
    Piece,
    PieceType,
    read_pieces,
    with_more_pieces,
)
from t5jax.errors import ConfigError, DataError


def own(*texts: str) -> list[Piece]:
    return [Piece(text, 0.0, PieceType.USER_DEFINED) for text in texts]


def test_added_pieces(t5, tmp_path):
    """What T5's vocabulary cannot say: braces, and the ends of lines."""
    seqio = pytest.importorskip("seqio")
    path = str(tmp_path / "braces.model")
    new, extension = extend_vocabulary(t5, own("{", "}", "\n", "<sep>"), path)
    assert (new.vocab_size, new.sentinel_id(0), new.first_sentinel_id) == (32104, 32103, 32004)
    text = "if {a <sep> b}\n return <extra_id_1>."
    ids = new.encode(text).tolist()
    assert [ids.count(token) for token in (32000, 32001, 32002, 32003, 32102)] == [1] * 5
    assert new.unk_id in t5.encode(text)
    assert new.unk_id not in ids
    assert new.decode(ids) == text
    assert seqio.SentencePieceVocabulary(path, extra_ids=100).encode(text) == ids
    assert extension.spellings[0] == extension.spellings[1] == ()
    assert list(extension.pieces) == ["{", "}", "\n", "<sep>"]
    spelled = "".join(t5.decode([token]) for token in extension.spellings[3])
    assert spelled == "sep>", "T5's file has no <"


def test_old_texts_keep_their_ids(t5, recorded, c4_texts, tmp_path):
    new, extension = extend_vocabulary(t5, own("⟨x⟩", "qzqz"), str(tmp_path / "new.model"))
    old_of = extension.id_map
    assert old_of.dtype == np.int32
    assert old_of.tolist() == [*range(32000), -1, -1, *range(32000, 32100)]
    texts = [record["text"] for record in recorded] + c4_texts[:100]
    for text in [*texts, "a <extra_id_0> b <extra_id_99>."]:
        ids = new.encode(text)
        assert old_of[ids].tolist() == t5.encode(text).tolist()
        assert new.decode(ids) == t5.decode(t5.encode(text))


def test_sources_are_the_spellings_in_old_ids(small, tmp_path):
    new, extension = extend_vocabulary(small, own("⟨x⟩", "riverbell"), str(tmp_path / "a.model"))
    sources = extension.sources()
    assert len(sources) == new.vocab_size == 182
    assert sources[:80] == [(i,) for i in range(80)]
    assert list(sources[80]) == list(range(3, 80)), "nothing spells it: all pieces"
    pieces = read_pieces(small.file_bytes())
    assert [pieces[i].text for i in sources[81]] != ["riverbell"]
    assert "".join(pieces[i].text for i in sources[81]) == "riverbell", "without a word mark"
    assert sources[82:] == [(i,) for i in range(80, 180)]


def test_sentinels_in_the_file_stay_on_top(small, tmp_path):
    path = tmp_path / "baked.model"
    baked = [Piece(f"▁<extra_id_{i}>", 0.0, PieceType.USER_DEFINED) for i in range(6, -1, -1)]
    path.write_bytes(with_more_pieces(small.file_bytes(), baked))
    old = SentencePieceVocabulary(path=str(path), extra_ids=0)
    new, extension = extend_vocabulary(old, own("{", "}", "\n"), str(tmp_path / "new.model"))
    assert (new.vocab_size, new.num_sentinels, new.first_sentinel_id) == (90, 7, 83)
    assert new.encode("the <extra_id_2> mill{")[-1] == 80
    assert extension.id_map.tolist() == [*range(80), -1, -1, -1, *range(80, 87)]
    assert list(extension.sources()[80]) == list(range(3, 80))


def test_learned_pieces(small, tmp_path):
    words = ["zymurgy", "quokka", "jabberwock", "fjordland"]
    triples = itertools.permutations(words, 3)
    text = [f"{a} and {b} of {c}." for a, b, c in triples] * 4 + SENTENCES
    pieces = learn_pieces(small, text, 7)
    assert len({piece.text for piece in pieces}) == 7
    assert {"▁quokka", "▁zymurgy"} <= {piece.text for piece in pieces}
    assert pieces == learn_pieces(small, iter(text), 7)
    old = read_pieces(small.file_bytes())
    lowest = min(piece.score for piece in old if piece.type == PieceType.NORMAL)
    assert all(lowest <= piece.score < 0 for piece in pieces)
    new, extension = extend_vocabulary(small, pieces, str(tmp_path / "new.model"))
    assert new.encode("quokka").tolist() == [80 + extension.pieces.index("▁quokka")]
    assert len(small.encode("quokka")) > 1
    used = {token for line in text for token in new.encode(line).tolist()}
    assert used > set(range(80, 87)), "none is there for nothing"
    before, after = (sum(len(v.encode(t)) for t in text) for v in (small, new))
    assert after < 0.6 * before
    for sentence in SENTENCES:
        assert new.decode(new.encode(sentence)) == sentence


def test_pieces_that_the_text_cannot_support(small, tmp_path):
    with pytest.raises(DataError, match=r"supports \d+ new pieces, not 5000"):
        learn_pieces(small, SENTENCES, 5000)
    with pytest.raises(ConfigError, match="ask for at least 1"):
        learn_pieces(small, SENTENCES, 0)
    path = tmp_path / "bpe.model"
    bpe = small.file_bytes() + b"\x12\x02\x18\x02"  # trainer_spec.model_type = BPE
    path.write_bytes(bpe)
    with pytest.raises(DataError, match="no unigram model"):
        learn_pieces(SentencePieceVocabulary(path=str(path)), SENTENCES, 3)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ((), "no pieces to add"),
        (("new", "the", "new"), "'new' is in the vocabulary already, or given twice"),
        (("▁",), "in the vocabulary already"),
        (("",), "it is empty or a sentinel"),
        (("▁<extra_id_100>",), "it is empty or a sentinel"),
        (("kk", "▁▁"), "'▁▁' is never found in a text"),
    ],
)
def test_pieces_that_cannot_be_added(small, tmp_path, texts, message):
    path = tmp_path / "new.model"
    with pytest.raises(DataError, match=message):
        extend_vocabulary(small, own(*texts), str(path))
    assert not list(tmp_path.iterdir())


def test_the_record_is_kept_beside_the_file(small, tmp_path):
    path = str(tmp_path / "new.model")
    new, extension = extend_vocabulary(small, own("{", "rivermill"), path)
    assert Extension.load(path) == extension
    assert (extension.old_fingerprint, extension.new_fingerprint) == (
        small.fingerprint,
        new.fingerprint,
    )
    with pytest.raises(ConfigError, match="exists already"):
        extend_vocabulary(small, own("}"), path)
    with pytest.raises(DataError, match=r"there is no .*small\.model\.extension\.json"):
        Extension.load(small.path)
    record = tmp_path / "new.model.extension.json"
    for damage in ("", "[]", json.dumps({"format": 9}), record.read_text().replace("old_", "x_")):
        record.write_text(damage)
        with pytest.raises(DataError, match="is damaged"):
            Extension.load(path)

"""The pieces of SentencePiece's files, and models with others."""

import subprocess
import sys

import numpy as np
import pytest
from prose import SENTENCES
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer, sentencepiece_model_pb2

from t5jax.data.vocabularies.model_file import (
    Piece,
    PieceType,
    is_unigram,
    read_pieces,
    verbatim,
    with_more_pieces,
    with_pieces,
)
from t5jax.errors import DataError


def parsed(model: bytes):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    return proto


def as_pieces(proto) -> list[Piece]:
    return [Piece(piece.piece, piece.score, piece.type) for piece in proto.pieces]


def test_pieces_as_protobuf_reads_them(small, t5):
    for vocabulary, size in ((small, 80), (t5, 32000)):
        model = vocabulary.file_bytes()
        pieces = read_pieces(model)
        assert len(pieces) == size
        assert pieces == as_pieces(parsed(model))
        assert with_pieces(model, pieces) == model


def test_other_pieces(small):
    model = small.file_bytes()
    long = Piece("long " * 60, -1.25, PieceType.BYTE)  # its length takes two bytes
    new = [Piece("ß文😀", -3.5), long, Piece("x", 0.0, PieceType.USER_DEFINED)]
    old = read_pieces(model)
    for changed, wanted in (
        (with_more_pieces(model, new), old + new),
        (with_pieces(model, new + old), new + old),
    ):
        proto = parsed(changed)
        assert as_pieces(proto) == wanted
        assert proto.trainer_spec == parsed(model).trainer_spec
        assert proto.normalizer_spec == parsed(model).normalizer_spec


def test_verbatim(small):
    normalizer = parsed(verbatim(small.file_bytes())).normalizer_spec
    assert (normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces) == (False, False)
    assert normalizer.name == "nmt_nfkc"
    processor = SentencePieceProcessor(model_proto=verbatim(small.file_bytes()))
    word, mark = processor.encode("river"), processor.encode("▁river")
    assert word != mark
    assert mark == small.encode("river").tolist()


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char"])
def test_kind_of_model(kind, tmp_path):
    prefix = tmp_path / kind
    SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_prefix=str(prefix), model_type=kind,
        vocab_size=60, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    assert is_unigram(prefix.with_suffix(".model").read_bytes()) == (kind == "unigram")


def test_invalid_model_files_are_refused(small):
    model = small.file_bytes()
    rng = np.random.default_rng(3)
    not_utf8 = b"\x0a\x03\x0a\x01\xff"
    for damaged in (b"\x0b", model[:-1], model[:57], b"\x0a\xff", not_utf8, rng.bytes(3) + b"\xff"):
        with pytest.raises(DataError, match="not a SentencePiece model"):
            read_pieces(damaged)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["t5jax.data.vocabularies", "tensorflow_text, seqio"])
def test_the_message_is_registered_once_beside_tensorflows(first):
    """TensorFlow and its text operators are built with protobuf and SentencePiece too."""
    code = (
        f"import {first}\n"
        "import t5jax.data.vocabularies.model_file as ours, tensorflow_text, seqio\n"
        "piece = ours.Piece('a', -1.5)\n"
        "assert ours.read_pieces(ours.with_more_pieces(b'', [piece])) == [piece]"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr

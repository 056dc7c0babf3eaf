"""A run's own copy of its vocabulary: written once, found again, never mistaken for another."""

import os
import shutil

from t5jax.data.vocabularies import (
    ByteVocabulary,
    SentencePieceVocabulary,
    save_vocabulary,
    saved_vocabulary,
)


def test_a_copy_is_found_after_its_folder_moved(small, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    named = save_vocabulary(small, one, "runs/one")
    assert named == SentencePieceVocabulary(path="runs/one/vocabulary.model")
    shutil.move(one, other)
    given = SentencePieceVocabulary(path="runs/gone.model")
    found = saved_vocabulary(given, other, small.fingerprint)
    assert found == SentencePieceVocabulary(path=f"{other}/vocabulary.model")
    assert found.fingerprint == small.fingerprint
    assert saved_vocabulary(given, one, small.fingerprint) is given  # no copy there
    assert saved_vocabulary(given, other, "0" * 64) is given  # that of another vocabulary


def test_the_same_file_is_not_written_again(small, tmp_path):
    path = save_vocabulary(small, tmp_path).path
    os.utime(path, ns=(7, 7))
    save_vocabulary(small, tmp_path)
    assert os.stat(path).st_mtime_ns == 7
    (tmp_path / "vocabulary.model").write_bytes(b"another")
    assert save_vocabulary(small, tmp_path).fingerprint == small.fingerprint


def test_bytes_need_no_file(tmp_path):
    assert save_vocabulary(ByteVocabulary(), tmp_path) == ByteVocabulary()
    assert saved_vocabulary(ByteVocabulary(), tmp_path, "") == ByteVocabulary()
    assert not list(tmp_path.iterdir())

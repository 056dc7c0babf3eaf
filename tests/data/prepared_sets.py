"""TFDS's prepared data sets of text, and TFRecord files, written without TensorFlow."""

import json
import pathlib
import struct
from collections.abc import Mapping, Sequence

from t5jax.data.sources.crc32c import masked_crc32c


def example(columns: Mapping[str, str]) -> bytes:
    """A serialised `tf.train.Example` of strings."""
    entries = (
        _field(1, name.encode()) + _field(2, _field(1, _field(1, text.encode())))
        for name, text in columns.items()
    )
    return _field(1, b"".join(_field(1, entry) for entry in entries))


def framed(data: bytes) -> bytes:
    """A record of a TFRecord file."""
    size = struct.pack("<Q", len(data))
    sums = (struct.pack("<I", masked_crc32c(part)) for part in (size, data))
    return size + next(sums) + data + next(sums)


def write_prepared(
    root: pathlib.Path, name: str, columns: Sequence[str], split: str, shards: Sequence[int]
) -> list[pathlib.Path]:
    """The two descriptions of a prepared data set of text columns, version 1.0.0; returns the
    paths at which its TFRecord files, of so many records each, have to be put."""
    import tensorflow_datasets as tfds

    folder, builder = root / name / "1.0.0", name.partition("/")[0]
    folder.mkdir(parents=True)
    features = tfds.features.FeaturesDict({column: tfds.features.Text() for column in columns})
    info = {
        "name": builder,
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        "splits": [{"name": split, "shardLengths": [str(length) for length in shards]}],
    }
    (folder / "features.json").write_text(json.dumps(features.to_json()))
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return [
        folder / f"{builder}-{split}.tfrecord-{number:05d}-of-{len(shards):05d}"
        for number in range(len(shards))
    ]


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    size, left = b"", len(content)
    while left > 127:
        size, left = size + bytes([left & 127 | 128]), left >> 7
    return bytes([number << 3 | 2]) + size + bytes([left]) + content

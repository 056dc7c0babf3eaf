"""Building the offline token store: tokenise a source once, with any number of processes.

A store is `<cache_dir>/<task>/<split>/`; `token_store.py` describes its files and reads them. One
shard of the source becomes one shard of the store, so that a build which was killed goes on where
it stopped, and any number of processes writes the same bytes.
"""

import concurrent.futures.process
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import multiprocessing
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Protocol

import numpy as np

from t5jax.data.token_store import (
    ENDS_DTYPE,
    META,
    NAME_RULE,
    VOCABULARY_FILE,
    CacheInfo,
    ShardInfo,
    TokenCache,
    can_name_directory,
    read_info,
)
from t5jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary, Vocabulary
from t5jax.errors import DataError

__all__ = ["CacheInfo", "DocumentSource", "TokenCache", "build_cache", "cache_directory"]

_FLUSH_TOKENS = 1 << 20


class DocumentSource(Protocol):
    """Where documents come from. Must be picklable: every process of a build gets a copy.

    A source may also have `shard_fingerprint(split, shard) -> str` (size and time, a checksum): a
    finished shard is then made again when its source changed.
    """

    def shards(self, split: str) -> list[str]:
        """Names of the split's shards, in their order."""
        ...

    def documents(self, split: str, shard: str) -> Iterator[str]:
        """The texts of one shard, the same ones in the same order every time."""
        ...


def cache_directory(cache_dir: str | os.PathLike, task: str, split: str) -> pathlib.Path:
    """`<cache_dir>/<task>/<split>`; DataError for a name that could leave `cache_dir`."""
    for what, name in (("task", task), ("split", split)):
        if not can_name_directory(name):
            raise DataError(f"{what} name {name!r} cannot name a directory: {NAME_RULE}")
    return pathlib.Path(cache_dir) / task / split


def build_cache(
    source: DocumentSource,
    split: str,
    directory: str | os.PathLike,
    *,
    vocabulary: Vocabulary,
    objective: Any = None,
    num_processes: int = 1,
    progress: Callable[[str], None] | None = None,
    overwrite: bool = False,
) -> CacheInfo:
    """Tokenises one split of a source into `directory` and returns what META.json says.

    May be killed at any moment and called again: shards that are finished, by the same vocabulary
    from the same source, are kept, and the result is the same byte for byte. A literal
    `<extra_id_0>` in a document is text, never a sentinel. `objective.to_dict()` is recorded.
    `num_processes=1` works inline; more are spawned, so a script that calls this needs the usual
    `if __name__ == "__main__"`. `progress` gets a line after each shard.
    Raises DataError when the directory holds a complete store of something else (unless
    `overwrite`), when another process is building there, and when the source has no text.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with _only_builder(directory):
        description = _describe(source)
        jobs = _jobs(source, split, directory, vocabulary)
        _refuse_other_store(jobs, directory, description, overwrite)
        shards = _build_shards(jobs, source, split, vocabulary, num_processes, progress)
        info = CacheInfo(
            split=split,
            dtype=jobs[0].dtype.name,
            vocabulary=_vocabulary_record(vocabulary),
            objective=objective.to_dict() if objective is not None else None,
            source=description,
            documents=sum(s.documents for s in shards),
            tokens=sum(s.tokens for s in shards),
            characters=sum(s.characters for s in shards),
            utf8_bytes=sum(s.utf8_bytes for s in shards),
            shards=shards,
        )
        if info.tokens == 0:
            raise DataError(
                f"split {split!r} of {description} gave {info.documents} documents and no tokens: "
                "nothing to store; check the source's files and the name of its text field"
            )
        if isinstance(vocabulary, SentencePieceVocabulary):
            _write(directory / VOCABULARY_FILE, vocabulary.model_bytes())
        _remove_strangers(directory, shards)
        _write(directory / META, _json(dataclasses.asdict(info)))
    return info


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    directory: pathlib.Path
    name: str
    source: str
    source_fingerprint: str
    vocabulary_fingerprint: str
    dtype: np.dtype


def _jobs(
    source: DocumentSource, split: str, directory: pathlib.Path, vocabulary: Vocabulary
) -> list[_Job]:
    names = source.shards(split)
    if not names:
        raise DataError(f"split {split!r} of {_describe(source)} has no shards: no file matches")
    if repeated := {name for name in names if names.count(name) > 1}:
        raise DataError(f"split {split!r} names shards twice: {sorted(repeated)[:5]}")
    fingerprint = getattr(source, "shard_fingerprint", lambda split, shard: "")
    description = _json(_describe(source)).decode()
    return [
        _Job(
            directory=directory,
            name=f"shard-{number:05d}",
            source=name,
            source_fingerprint=hashlib.sha256(
                f"{description}{split}\0{name}\0{fingerprint(split, name)}".encode()
            ).hexdigest(),
            vocabulary_fingerprint=vocabulary.fingerprint,
            dtype=np.dtype("<u2" if vocabulary.vocab_size <= 1 << 16 else "<u4"),
        )
        for number, name in enumerate(names)
    ]


def _build_shards(
    jobs: list[_Job],
    source: DocumentSource,
    split: str,
    vocabulary: Vocabulary,
    num_processes: int,
    progress: Callable[[str], None] | None,
) -> list[ShardInfo]:
    done = {job.name: info for job in jobs if (info := _finished(job)) is not None}
    missing = [job for job in jobs if job.name not in done]
    if missing:
        (jobs[0].directory / META).unlink(missing_ok=True)  # it would vouch for a store in pieces
    report = _Report(progress, len(jobs), len(done))
    build = functools.partial(_build_shard, source=source, split=split, vocabulary=vocabulary)
    if num_processes <= 1 or len(missing) <= 1:
        built = map(build, missing)
    else:
        built = _in_processes(build, missing, min(num_processes, len(missing)))
    for info in built:
        done[info.name] = info
        report(info)
    return [done[job.name] for job in jobs]


def _in_processes(
    build: Callable[[_Job], ShardInfo], jobs: list[_Job], num_processes: int
) -> Iterator[ShardInfo]:
    with concurrent.futures.ProcessPoolExecutor(
        num_processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_die_with_parent,
    ) as pool:
        futures = [pool.submit(build, job) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise RuntimeError(
                "a tokenising process died (killed, or out of memory); finished shards are kept, "
                "so run again, with fewer processes if memory is short"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _build_shard(
    job: _Job, *, source: DocumentSource, split: str, vocabulary: Vocabulary
) -> ShardInfo:
    """Writes one shard; its .json record comes last and makes it count as finished."""
    stem = job.directory / job.name
    ends, tokens, characters, utf8_bytes = [], 0, 0, 0
    digest = hashlib.sha256()
    with _new_file(stem.with_suffix(".tokens")) as file:
        for chunk in _chunks(_tokenised(job, source, split, vocabulary)):
            data = np.concatenate([ids for ids, _ in chunk]).astype(job.dtype).tobytes()
            digest.update(data)
            file.write(data)
            for ids, text in chunk:
                tokens += len(ids)
                ends.append(tokens)
                characters += len(text)
                utf8_bytes += len(text.encode("utf-8", "surrogatepass"))
    ends_data = np.asarray(ends, ENDS_DTYPE).tobytes()
    _write(stem.with_suffix(".ends"), ends_data)
    info = ShardInfo(
        name=job.name,
        source=job.source,
        source_fingerprint=job.source_fingerprint,
        vocabulary_fingerprint=job.vocabulary_fingerprint,
        documents=len(ends),
        tokens=tokens,
        characters=characters,
        utf8_bytes=utf8_bytes,
        tokens_sha256=digest.hexdigest(),
        ends_sha256=hashlib.sha256(ends_data).hexdigest(),
    )
    _write(stem.with_suffix(".json"), _json(dataclasses.asdict(info)))
    return info


Document = tuple[np.ndarray, str]


def _tokenised(
    job: _Job, source: DocumentSource, split: str, vocabulary: Vocabulary
) -> Iterator[Document]:
    for number, text in enumerate(source.documents(split, job.source)):
        ids = vocabulary.encode(text, sentinels=False)
        if len(ids) and ids.min() <= vocabulary.eos_id:
            raise DataError(
                f"{job.source}: document {number} encodes to id {ids.min()}, which is reserved for "
                "padding or EOS; the vocabulary is not T5-compatible"
            )
        yield ids, text


def _chunks(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Enough documents at a time that writing costs nothing, few enough to fit anywhere."""
    chunk, size = [], 0
    for document in documents:
        chunk.append(document)
        size += len(document[0])
        if size >= _FLUSH_TOKENS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _finished(job: _Job) -> ShardInfo | None:
    """The shard's record, if an earlier build completed it from the same source and vocabulary."""
    stem = job.directory / job.name
    try:
        info = ShardInfo(**json.loads(stem.with_suffix(".json").read_bytes()))
        tokens_size = stem.with_suffix(".tokens").stat().st_size
        ends_size = stem.with_suffix(".ends").stat().st_size
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None  # never finished, or written by another version: made again
    wanted = (job.source, job.source_fingerprint, job.vocabulary_fingerprint)
    found = (info.source, info.source_fingerprint, info.vocabulary_fingerprint)
    sizes_fit = (
        ends_size == info.documents * ENDS_DTYPE.itemsize
        and tokens_size == info.tokens * job.dtype.itemsize
    )
    return info if wanted == found and sizes_fit else None


class _Report:
    """A line per finished shard: `cache: 3/16 shards, 41200 documents, 24.1 M tokens, 2.9 M/s`."""

    def __init__(self, progress: Callable[[str], None] | None, shards: int, kept: int):
        self._progress, self._shards, self._done = progress, shards, kept
        self._documents = self._tokens = 0
        self._start = time.monotonic()
        if progress and kept:
            progress(f"cache: {kept}/{shards} shards were finished before and are kept")

    def __call__(self, info: ShardInfo) -> None:
        self._done += 1
        self._documents += info.documents
        self._tokens += info.tokens
        if self._progress:
            rate = self._tokens / max(time.monotonic() - self._start, 1e-9)
            self._progress(
                f"cache: {self._done}/{self._shards} shards, {self._documents} documents, "
                f"{self._tokens / 1e6:.1f} M tokens, {rate / 1e6:.2f} M/s"
            )


def _die_with_parent() -> None:
    """A worker outlives a killed parent otherwise: it waits for ever on a queue nobody feeds."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch():
        parent.join()
        os._exit(70)

    threading.Thread(target=watch, daemon=True).start()


def _refuse_other_store(
    jobs: list[_Job], directory: pathlib.Path, description: dict[str, Any], overwrite: bool
) -> None:
    """A complete store is somebody's work: it is replaced only when that is asked for."""
    if overwrite or not (directory / META).exists():
        return
    info = read_info(directory)
    for what, found, wanted in (
        ("vocabulary", info.vocabulary["fingerprint"], jobs[0].vocabulary_fingerprint),
        ("source", info.source, description),
        ("list of shards", [shard.source for shard in info.shards], [job.source for job in jobs]),
    ):
        if found != wanted:
            raise DataError(
                f"{directory} holds a token store with another {what} ({_shorten(found)}, now "
                f"{_shorten(wanted)}); delete it, ask for overwriting, or use another directory"
            )


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _describe(source: DocumentSource) -> dict[str, Any]:
    """The source's type and its settings, as JSON will give them back."""
    kind = type(source)
    record: dict[str, Any] = {"type": f"{kind.__module__}.{kind.__qualname__}"}
    if dataclasses.is_dataclass(source):
        shown = [field.name for field in dataclasses.fields(source) if field.repr]
        record |= {name: getattr(source, name) for name in shown}
    return json.loads(_json(record))


def _vocabulary_record(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "type": "bytes" if isinstance(vocabulary, ByteVocabulary) else "sentencepiece",
        "extra_ids": vocabulary.extra_ids,
        "vocab_size": vocabulary.vocab_size,
        "fingerprint": vocabulary.fingerprint,
    }


@contextlib.contextmanager
def _only_builder(directory: pathlib.Path) -> Iterator[None]:
    """The lock goes away with its process, however that ends."""
    with open(directory / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another process is building {directory}; wait for it") from error
        yield


def _remove_strangers(directory: pathlib.Path, shards: list[ShardInfo]) -> None:
    """Shards of an earlier build that had more of them, and files that a kill left half written."""
    names = {shard.name for shard in shards}
    for path in directory.glob("shard-*"):
        if path.suffix == ".tmp" or path.stem not in names:
            path.unlink()


def _json(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n").encode()


def _write(path: pathlib.Path, data: bytes) -> None:
    with _new_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def _new_file(path: pathlib.Path) -> Iterator[BinaryIO]:
    """A file that appears under its name whole and on disk, or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)

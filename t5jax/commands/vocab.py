"""`t5jax vocab train | extend | grow`: train a SentencePiece model, add pieces to one, and begin a
run with another run's parameters resized to an extended vocabulary."""

import dataclasses
import itertools
import pathlib
import re
import time
from collections.abc import Iterator, Sequence

import jax

from t5jax import runtime
from t5jax.checkpoints import read_record, restore_params
from t5jax.config import RunConfig, from_text, load_config
from t5jax.data.config import DataConfig
from t5jax.data.records import Rejected, counted
from t5jax.data.registry.resolve import checked_tasks
from t5jax.data.registry.texts import task_documents
from t5jax.data.tasks.task import Task, TextTask
from t5jax.data.vocabularies import (
    DEFAULT_SENTINELS,
    Extension,
    SentencePieceVocabulary,
    extend_vocabulary,
    learn_pieces,
    train_sentencepiece,
)
from t5jax.data.vocabularies.files import PUBLISHED, is_local
from t5jax.data.vocabularies.model_file import Piece, PieceType
from t5jax.errors import ConfigError
from t5jax.model.resize_vocab import resize_token_embeddings
from t5jax.run.build import build_program, build_train_loader, resolve_mixture
from t5jax.run.initialize import begin_run, check_same_model, refuse_existing_run
from t5jax.run.provenance import checkpoint_record
from t5jax.run.restore import saved_checkpoints

_SENTINEL = re.compile(r"<extra_id_\d+>")
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\"}


def vocab_train_command(
    config_file: str,
    flags: list[str],
    *,
    num_pieces: int,
    max_characters: int,
    character_coverage: float = 0.9995,
    byte_fallback: bool = False,
) -> None:
    data = load_config(config_file, flags).data
    path = getattr(data.vocabulary, "path", "")
    if pathlib.Path(path).is_file():
        raise ConfigError(f"data.vocabulary.path = {path} exists; delete it or name another file")
    train_vocabulary(
        data,
        num_pieces=num_pieces,
        max_characters=max_characters,
        character_coverage=character_coverage,
        byte_fallback=byte_fallback,
    )


def train_vocabulary(
    data: DataConfig,
    *,
    num_pieces: int,
    max_characters: int = 20_000_000,
    character_coverage: float = 0.9995,
    byte_fallback: bool = False,
) -> None:
    """Writes `data.vocabulary.path`, trained on the first `max_characters` of the train split.

    Raises ConfigError if the config's vocabulary is not a SentencePiece model in a file here.
    """
    if not isinstance(data.vocabulary, SentencePieceVocabulary):
        raise ConfigError(f"data.vocabulary is {data.vocabulary}: only SentencePiece is trained")
    path = data.vocabulary.path
    if not is_local(path):
        raise ConfigError(
            f"data.vocabulary.path = {path} is a published file: leave it as it is, or name a file "
            "here to train"
        )
    start = time.monotonic()
    train_sentencepiece(
        _documents(data),
        path,
        vocab_size=num_pieces,
        num_chars=max_characters,
        character_coverage=character_coverage,
        byte_fallback=byte_fallback,
    )
    print(
        f"{path}: {num_pieces:,} pieces + {data.vocabulary.extra_ids} sentinels = "
        f"{data.vocabulary.vocab_size:,} ids, {time.monotonic() - start:.1f} s"
    )


def vocab_extend_command(
    file: str,
    flags: list[str],
    *,
    output: str,
    extra_ids: int | None,
    pieces: Sequence[str],
    pieces_file: str | None,
    config_file: str | None,
    num_pieces: int | None,
    max_characters: int,
) -> None:
    """Writes `output`, the vocabulary in `file` with more pieces: given ones, learned ones, or
    both."""
    if (config_file is None) != (num_pieces is None):
        raise ConfigError("--from CONFIG and --num-pieces N go together: which text, how many")
    if flags and config_file is None:
        raise ConfigError(f"{flags[0]} has no effect without --from CONFIG")
    if extra_ids is None:
        extra_ids = PUBLISHED[file].extra_ids if file in PUBLISHED else DEFAULT_SENTINELS
    old = SentencePieceVocabulary(path=file, extra_ids=extra_ids)
    texts = [*pieces, *(_lines_of(pieces_file) if pieces_file else ())]
    new_pieces = [Piece(_unescape(text), 0.0, PieceType.USER_DEFINED) for text in texts]
    if config_file is not None and num_pieces is not None:
        documents = _documents(load_config(config_file, flags).data)
        new_pieces += learn_pieces(old, documents, num_pieces, num_chars=max_characters)
    new, extension = extend_vocabulary(old, new_pieces, output)
    print(
        f"{output}: {old.vocab_size:,} ids + {len(new_pieces):,} pieces = {new.vocab_size:,} ids; "
        f"the new ones are {extension.first_new:,} to "
        f"{extension.first_new + len(new_pieces) - 1:,}: {_shown(extension.pieces)}"
    )
    rows = -(-new.vocab_size // 128) * 128
    print(
        f"a config for it has data.vocabulary.path={output!r}, model.vocab_size={rows} and a "
        "data.cache_dir of its own; `t5jax vocab grow RUN CONFIG` gives it a trained model"
    )


def vocab_grow_command(
    workdir: str, config_file: str, flags: list[str], *, step: int | None
) -> None:
    """Writes step 0 of the config's run; `t5jax train CONFIG` goes on from there.

    The parameters are those of the newest good step of `workdir`, or of `step`, with tables for the
    config's vocabulary, which `t5jax vocab extend` made of the run's. The optimizer begins anew.
    Raises ConfigError or CheckpointError when run, extension and config do not fit each other.
    """
    config = load_config(config_file, flags)
    directory = saved_checkpoints(workdir)
    record = read_record(directory, step)
    old_model = from_text(record.content["config"]).model
    extension = _extension(config, record.content["vocabulary"], workdir)
    check_same_model(old_model, config.model, where="the run that is grown", free=("vocab_size",))
    if config.init.path is not None:
        raise ConfigError(
            f"init.path = {config.init.path!r} has no effect on a run that `t5jax vocab grow` "
            "begins: leave it out"
        )
    refuse_existing_run(config.workdir)
    runtime.start_distributed(config.runtime)
    if jax.process_count() > 1:
        raise ConfigError("`t5jax vocab grow` rewrites whole tables: start it on one host")
    config.check_mesh(jax.device_count())
    loader = build_train_loader(config, resolve_mixture(config))
    old_program = build_program(dataclasses.replace(config, model=old_model))
    restored = restore_params(directory, old_program.abstract_state.params, record.step)
    grown = resize_token_embeddings(restored.state, extension.sources(), config.model.vocab_size)
    state = build_program(config).init_from_params(grown)
    content = checkpoint_record(config, loader.state(0))
    content["grown_from"] = {"workdir": workdir, "step": restored.step}
    begin_run(config, state, content)
    print(
        f"{config.workdir}: step 0 has the parameters of {workdir}, step {restored.step}, with "
        f"{extension.new_size - extension.old_size:,} new pieces and a table of "
        f"{config.model.vocab_size:,} rows (was {old_model.vocab_size:,}); go on with: t5jax train "
        f"{config_file}"
    )


def _extension(config: RunConfig, trained_with: str, workdir: str) -> Extension:
    """The extension record beside the config's vocabulary, checked against both vocabularies."""
    vocabulary = config.data.vocabulary
    path = getattr(vocabulary, "path", None)
    if path is None:
        raise ConfigError(f"data.vocabulary = {vocabulary}: give one of `t5jax vocab extend`")
    extension = Extension.load(path)
    if extension.new_fingerprint != vocabulary.fingerprint:
        raise ConfigError(
            f"data.vocabulary.path = {path} has changed since it was extended (or extra_ids = "
            f"{vocabulary.extra_ids} is not as it was): extend the vocabulary again"
        )
    if extension.old_fingerprint != trained_with:
        raise ConfigError(
            f"data.vocabulary.path = {path} extends vocabulary {extension.old_fingerprint[:12]}…, "
            f"{workdir} was trained with {trained_with[:12]}…: extend the vocabulary of that run"
        )
    return extension


def _documents(data: DataConfig) -> Iterator[str]:
    """Texts of the train splits of the config's tasks, a document of each in turn; a task that is
    only evaluated has none."""
    trained = [task for task in checked_tasks(data) if "train" in task.splits]
    for documents in itertools.zip_longest(*(_texts(task, data) for task in trained)):
        for document in documents:
            yield from document or ()


def _texts(task: Task, data: DataConfig) -> Iterator[list[str]]:
    """The strings of each document: its text, or inputs and targets without the sentinels, which
    are ids of their own."""
    texts, rejected = task_documents(task, data), Rejected()
    for shard in texts.shards("train"):
        for document in texts.documents("train", shard, rejected):
            strings = [text for text in document.values() if isinstance(text, str)]
            if len(strings) < len(document):
                raise ConfigError(
                    f"data.mixture = {data.mixture}: task {task.name} gives ids, not texts; train "
                    "a vocabulary on a task of text"
                )
            if not isinstance(task, TextTask):  # in a document they are text
                strings = [_SENTINEL.sub(" ", text) for text in strings]
            yield strings
    if rejected.records or rejected.damaged_files:
        print(
            f"{task.name}: {counted(rejected.records, 'record')} and the rest of "
            f"{counted(rejected.damaged_files, 'file')} were left out, the first: "
            f"{rejected.places[0]}"
        )


def _lines_of(file: str) -> list[str]:
    """A piece per line, taken literally: spaces count."""
    path = pathlib.Path(file)
    if not path.is_file():
        raise ConfigError(f"--pieces-file {file}: there is no such file")
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line]


def _unescape(text: str) -> str:
    """`\\n`, `\\t` and `\\\\` as a shell and a file with a piece a line can give them."""
    return re.sub(r"\\([nt\\])", lambda found: _ESCAPES[found[1]], text)


def _shown(pieces: tuple[str, ...]) -> str:
    shown = " ".join(map(repr, pieces[:8]))
    return f"{shown} …" if len(pieces) > 8 else shown

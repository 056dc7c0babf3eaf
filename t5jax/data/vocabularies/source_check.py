"""A vocabulary against the tokeniser that it was made of: the same ids, the same text.

A fixed set of texts is encoded and decoded by both. The source is read with `tokenizers` where it
is a tokenizer.json, with `sentencepiece` and the rules of the files beside it where it is a model
file. One thing is different on purpose, as in T5's own training (seqio): a sentinel takes the space
before it, and what follows it begins a word only behind a space. So sentinels stand between single
spaces here, and the source encodes the text on either side of them by itself.
"""

import json
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence

import sentencepiece

from t5jax.data.vocabularies.added_tokens import AddedToken
from t5jax.data.vocabularies.base import Vocabulary, sentinel_index
from t5jax.data.vocabularies.byte import ByteVocabulary
from t5jax.data.vocabularies.huggingface import HuggingFaceVocabulary
from t5jax.data.vocabularies.model_file import (
    Piece,
    PieceType,
    split_record,
    with_more_pieces,
    without_dummy_prefix,
)
from t5jax.data.vocabularies.sentencepiece import SentencePieceVocabulary
from t5jax.data.vocabularies.sentencepiece_directory import model_file_in
from t5jax.data.vocabularies.tokenizer_json import Record, TokenizerRecord, read_tokenizer
from t5jax.data.vocabularies.tokenizer_variants import changed_by_normalization
from t5jax.errors import DataError

TEXTS = (
    "translate English to German: That is good.",
    "f(x) {y}\nz",
    "two  spaces and   three",
    " a space before and behind ",
    "\n\nlines\tand tabs\r\n",
    "SELECT a FROM t WHERE b < 3;",
    "Naïve façade, “quoted” – ½ ﬁ Ａ",
    "Сегодня хорошая погода",
    "今日は良い天気です。天气很好",
    "आज मौसम अच्छा है",
    "الطقس جميل اليوم",
    "🙂 👩‍👩‍👧 e\u0301",
    "0123456789 3.14e-10",
    "don't <b>bold</b> [MASK] <0x41>",
)
_CUT = re.compile(r" ?(<extra_id_\d+>)")

Encode = Callable[[str], list[int]]
Decode = Callable[[list[int]], str]


def check_against_source(vocabulary: Vocabulary, directory: str | pathlib.Path) -> int:
    """Compares a vocabulary with the tokeniser of a Hugging Face directory; returns the number of
    texts that were compared.

    Raises DataError at the first difference, with the text and both lists of ids.
    """
    folder = pathlib.Path(directory)
    if isinstance(vocabulary, ByteVocabulary):
        return 0  # has no file: the ids are the bytes of UTF-8
    encode, decode = _source(vocabulary, folder)
    texts = tuple(probe_texts(vocabulary))
    for text in texts:
        ids, theirs = vocabulary.encode(text).tolist(), encode(text)
        if ids != theirs:
            raise _difference(folder, repr(text), ids, theirs)
    # How an unknown piece shows is a choice, and so is the space beside an added token.
    apart = _shown_otherwise(vocabulary)
    for text in TEXTS:
        ids = vocabulary.encode(text).tolist()
        if not apart.isdisjoint(ids):
            continue
        ours, theirs = vocabulary.decode(ids), decode(ids)
        if ours != theirs:
            raise _difference(folder, f"the text of {ids}", repr(ours), repr(theirs))
    return len(texts)


def probe_texts(vocabulary: Vocabulary) -> Iterator[str]:
    """The fixed texts; every added token alone, in a word, among words; sentinels at the beginning,
    in the middle and at the end of a text, and beside added tokens."""
    yield from TEXTS
    last = vocabulary.num_sentinels - 1
    if last >= 0:
        yield "<extra_id_0> a river"
        yield "the <extra_id_0> of the river"
        yield f"the river <extra_id_{last}>"
        yield f"<extra_id_{last}> a <extra_id_0>"
    for token in _added_tokens(vocabulary):
        yield token.content
        yield f"a{token.content}b"
        yield f"a {token.content} b"
        yield f"{token.content}{token.content} x"
    for token in _added_tokens(vocabulary)[:3]:
        if last >= 0:
            yield f"<extra_id_0> a{token.content}b <extra_id_{last}>"


def _added_tokens(vocabulary: Vocabulary) -> Sequence[AddedToken]:
    if isinstance(vocabulary, SentencePieceVocabulary | HuggingFaceVocabulary):
        return vocabulary.added_tokens
    return ()


def _shown_otherwise(vocabulary: Vocabulary) -> set[int]:
    tokens = {token.id for token in _added_tokens(vocabulary)}
    return tokens | {vocabulary.unk_id, *vocabulary.sentinel_ids}


def _difference(folder: pathlib.Path, what: str, ours: object, source: object) -> DataError:
    return DataError(
        f"the vocabulary of {folder} is not that of its files: {what} is {ours} here, and {source} "
        "there; please report this with the tokenizer's files, and give another tokenizer with "
        "--vocabulary meanwhile"
    )


def _source(vocabulary: Vocabulary, folder: pathlib.Path) -> tuple[Encode, Decode]:
    """What encodes and decodes texts as the directory's files say."""
    model = model_file_in(folder)
    if isinstance(vocabulary, SentencePieceVocabulary) and model is not None:
        return _by_pieces(vocabulary, model)
    pieces = isinstance(vocabulary, HuggingFaceVocabulary) and vocabulary.sentinels_are_pieces
    return _by_tokenizers(read_tokenizer(folder), pieces)


def _around_sentinels(segment: Callable[[str, bool], list[int]], ids_of: dict[str, int]) -> Encode:
    """Encodes the text between sentinels by itself; `segment` is told whether it is the first."""

    def encode(text: str) -> list[int]:
        ids = []
        for number, part in enumerate(_CUT.split(text)):
            ids += [ids_of[part]] if part in ids_of else segment(part, number == 0)
        return ids

    return encode


def _by_pieces(vocabulary: SentencePieceVocabulary, model: pathlib.Path) -> tuple[Encode, Decode]:
    """SentencePiece on the text between added tokens, as T5's own tokenizer class has it."""
    data, _ = split_record(model.read_bytes())
    whole = sentencepiece.SentencePieceProcessor(model_proto=data)
    behind = with_more_pieces(without_dummy_prefix(data), [Piece("⟦", 0.0, PieceType.USER_DEFINED)])
    bare = sentencepiece.SentencePieceProcessor(model_proto=behind)
    tokens = {token.content: token for token in vocabulary.added_tokens}

    def words(part: str, beginning: bool) -> list[int]:
        if beginning or vocabulary.prefix_after_tokens:
            return whole.encode(part)
        # `legacy: false`: something stands before the part, so that its first space remains.
        return bare.encode("⟦" + part)[1:]

    def segment(text: str, first: bool) -> list[int]:
        if not first and vocabulary.prefix_after_tokens:
            text = text.removeprefix(" ")  # the one that a beginning gets
        parts = _cut_at(text, tokens)
        ids: list[int] = []
        for number, part in enumerate(parts):
            beginning = first and number == 0
            ids += [tokens[part].id] if number % 2 else words(part, beginning) if part else []
        return ids

    names = {f"<extra_id_{i}>": number for i, number in enumerate(vocabulary.sentinel_ids)}
    return _around_sentinels(segment, names), whole.decode


def _cut_at(text: str, tokens: dict[str, AddedToken]) -> list[str]:
    """Text, token, text, … as the slow tokenizers of transformers cut and strip it."""
    if not tokens:
        return [text]
    pattern = "|".join(
        rf"(?<!\w){re.escape(c)}(?!\w)" if tokens[c].single_word else re.escape(c)
        for c in sorted(tokens, key=len, reverse=True)
    )
    parts = re.split(f"({pattern})", text)
    for number in range(1, len(parts), 2):
        if tokens[parts[number]].lstrip:
            parts[number - 1] = parts[number - 1].rstrip()
        if tokens[parts[number]].rstrip:
            parts[number + 1] = parts[number + 1].lstrip()
    return parts


def _by_tokenizers(found: TokenizerRecord, sentinels_are_pieces: bool) -> tuple[Encode, Decode]:
    """The file's own tokeniser; but added tokens that normalisation would change are found in the
    text as it is written (see `HuggingFaceVocabulary`)."""
    from tokenizers import Tokenizer

    record: Record = {
        **found.record,
        "truncation": None,
        "padding": None,
        "post_processor": None,
    }
    changed = changed_by_normalization(record)
    entries = [
        {**entry, "normalized": False} if entry["content"] in changed else entry
        for entry in record["added_tokens"]
    ]
    tokenizer = Tokenizer.from_str(json.dumps(record | {"added_tokens": entries}))

    def segment(text: str, first: bool = True) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=False)

    if not sentinels_are_pieces:
        return segment, decode
    ids = ((sentinel_index(content), number) for content, number in found.ids.items())
    names = {f"<extra_id_{index}>": number for index, number in ids if index is not None}
    return _around_sentinels(segment, names), decode

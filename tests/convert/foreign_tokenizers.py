"""Tokenizer files of published models' layouts, small: what their authors or transformers wrote."""

import io
import json
import pathlib

import sentencepiece

from tests.data.vocabularies.prose import SENTENCES

NUM_SENTINELS = 10  # of the layouts that number them here


def trained_model(**settings) -> bytes:
    """A SentencePiece model of a few sentences."""
    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3), model_writer=writer, minloglevel=2, **settings
    )
    return writer.getvalue()


def num_pieces(model: bytes) -> int:
    return sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()


def token(content: str, *, special: bool = True, **flags) -> dict:
    """An entry of `added_tokens_decoder` as transformers writes it."""
    found = {"content": content, "lstrip": False, "normalized": not special, "rstrip": False}
    return {**found, "single_word": False, "special": special, **flags}


def write(folder: pathlib.Path, files: dict[str, bytes | dict]) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / name).write_bytes(data)
    return folder


def model_config(model_type: str, vocab_size: int, *, pad: int, eos: int) -> dict:
    """The ids in a model's config.json."""
    ids = {"pad_token_id": pad, "eos_token_id": eos, "decoder_start_token_id": 0}
    return {"model_type": model_type, "vocab_size": vocab_size, **ids}


def special_tokens(pad: str | None = "<pad>") -> dict:
    return {"pad_token": pad, "eos_token": "</s>", "unk_token": "<unk>"}


def sentinels(first: int, *, count: int = NUM_SENTINELS, upwards: bool = False) -> dict[str, dict]:
    """`count` entries, of which the lowest id is `first`."""
    order = range(count) if upwards else range(count - 1, -1, -1)
    return {str(first + n): token(f"<extra_id_{i}>") for n, i in enumerate(order)}


def t5_model() -> bytes:
    return trained_model(vocab_size=70, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)


def madlad(folder: pathlib.Path, pad: str = "<pad>") -> pathlib.Path:
    """Unknown 0, padding 1, EOS 2; language tokens are pieces; no sentinels."""
    ids = {"pad_id": 1} if pad == "<pad>" else {"pad_id": -1, "bos_id": 1}
    settings = {"unk_id": 0, "eos_id": 2, "bos_id": -1, **ids}
    model = trained_model(vocab_size=80, user_defined_symbols=["<2de>", "<2pt>"], **settings)
    decoder = {str(n): token(c) for n, c in enumerate(("<unk>", pad, "</s>"))}
    return write(
        folder,
        {
            "spiece.model": model,
            "tokenizer_config.json": {
                "tokenizer_class": "T5Tokenizer", "extra_ids": 0, **special_tokens(pad),
                "added_tokens_decoder": decoder, "additional_special_tokens": [],
            },
            "config.json": model_config("t5", 80, pad=1, eos=2),
        },
    )  # fmt: skip


def llama_model() -> bytes:
    return trained_model(
        vocab_size=360, model_type="bpe", byte_fallback=True, pad_id=-1, bos_id=1, eos_id=2,
        unk_id=0, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_digits=True, hard_vocab_limit=False,
    )  # fmt: skip


def pile_t5(
    folder: pathlib.Path, *, pad: bool = False, upwards: bool = False, **changes
) -> pathlib.Path:
    """Llama's `tokenizer.model` (unknown 0, BOS 1, EOS 2); sentinels, and a padding token or none,
    behind it."""
    model = llama_model()
    size = num_pieces(model)
    decoder = {str(n): token(c) for n, c in enumerate(("<unk>", "<s>", "</s>"))}
    decoder |= sentinels(size + pad, upwards=upwards)
    if pad:
        decoder |= {str(size): token("<pad>")}
    config = {
        "tokenizer_class": "LlamaTokenizer", "add_bos_token": False, "add_eos_token": True,
        "bos_token": "<s>", **special_tokens("<pad>" if pad else None), "legacy": True,
        "added_tokens_decoder": decoder, "sp_model_kwargs": {}, "model_max_length": 1e30,
        "clean_up_tokenization_spaces": False, "use_default_system_prompt": False,
    }  # fmt: skip
    return write(
        folder,
        {
            "tokenizer.model": model,
            "tokenizer_config.json": {**config, **changes},
            "config.json": model_config("umt5", 400, pad=pad * size, eos=2),
        },
    )


def codet5(folder: pathlib.Path) -> pathlib.Path:
    """RoBERTa's byte-level BPE: padding 0, BOS 1, EOS 2, unknown 3; sentinels in added_tokens.json,
    which take the space before them."""
    import tokenizers

    bpe = tokenizers.ByteLevelBPETokenizer()
    specials = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(SENTENCES * 3, vocab_size=330, special_tokens=specials)
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save_model(str(folder))
    size = bpe.get_vocab_size()
    flags = {"lstrip": True, "normalized": True, "rstrip": False, "single_word": False}
    names = [f"<extra_id_{i}>" for i in range(NUM_SENTINELS - 1, -1, -1)]
    roles = {
        "bos_token": "<s>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>",
        **special_tokens(),
    }  # fmt: skip
    return write(
        folder,
        {
            "added_tokens.json": {name: size + n for n, name in enumerate(names)},
            "special_tokens_map.json": {
                **roles,
                "mask_token": {"content": "<mask>", **flags},
                "additional_special_tokens": [{"content": name, **flags} for name in names],
            },
            "tokenizer_config.json": {
                **roles, "tokenizer_class": "RobertaTokenizer", "add_prefix_space": False,
                "errors": "replace", "trim_offsets": True, "model_max_length": 512,
            },
            "config.json": model_config("t5", size + 10, pad=0, eos=2),
        },
    )  # fmt: skip


def aya(folder: pathlib.Path) -> pathlib.Path:
    """mT5's: the sentinels are pieces of the file."""
    from t5jax.data.vocabularies.model_file import Piece, PieceType, with_more_pieces

    pieces = [Piece(f"▁<extra_id_{i}>", 0.0, PieceType.USER_DEFINED) for i in range(12, -1, -1)]
    return write(
        folder,
        {
            "spiece.model": with_more_pieces(t5_model(), pieces),
            "tokenizer_config.json": {
                "tokenizer_class": "T5Tokenizer", "extra_ids": 0, **special_tokens(),
                "additional_special_tokens": [], "sp_model_kwargs": {},
            },
            "special_tokens_map.json": special_tokens(),
        },
    )  # fmt: skip


def flan_ul2(folder: pathlib.Path) -> pathlib.Path:
    """T5's file; the sentinels are listed without ids, as files before transformers 4.34 do."""
    listed = [f"<extra_id_{i}>" for i in range(100)]
    return write(
        folder,
        {
            "spiece.model": t5_model(),
            "tokenizer_config.json": {
                "tokenizer_class": "T5Tokenizer", "extra_ids": 100, **special_tokens(),
                "additional_special_tokens": listed, "name_or_path": "flan-ul2",
                "special_tokens_map_file": "/somewhere/special_tokens_map.json",
            },
            "special_tokens_map.json": {**special_tokens(), "additional_special_tokens": listed},
        },
    )  # fmt: skip


OWN = {"{": {}, "}": {}, "\n": {}, "<sep>": {"special": True}}


def resized(
    folder: pathlib.Path,
    own: dict[str, dict] | None = None,
    *,
    model: bytes | None = None,
    count: int = NUM_SENTINELS,
    **changes,
) -> pathlib.Path:
    """T5's file, its sentinels and then a user's tokens, as transformers 4.46 saves them (slow)."""
    model = model or t5_model()
    size = num_pieces(model)
    decoder = {str(n): token(c) for n, c in enumerate(("<pad>", "</s>", "<unk>"))}
    decoder |= sentinels(size, count=count)
    for n, (content, flags) in enumerate((OWN if own is None else own).items()):
        decoder[str(size + count + n)] = token(content, **{"special": False, **flags})
    listed = [f"<extra_id_{i}>" for i in range(count)]
    listed += [t["content"] for n, t in decoder.items() if int(n) >= size + count and t["special"]]
    config = {
        "add_prefix_space": True, "added_tokens_decoder": decoder,
        "additional_special_tokens": listed, "clean_up_tokenization_spaces": False,
        "extra_ids": count, "legacy": True, "sp_model_kwargs": {}, **special_tokens(),
        "tokenizer_class": "T5Tokenizer",
    }  # fmt: skip
    added = {t["content"]: int(n) for n, t in decoder.items() if int(n) >= size}
    return write(
        folder,
        {
            "spiece.model": model,
            "tokenizer_config.json": {**config, **changes},
            "added_tokens.json": added,
            "special_tokens_map.json": {**special_tokens(), "additional_special_tokens": listed},
        },
    )


LAYOUTS = {
    "madlad": madlad,
    "madlad, pads with <s>": lambda folder: madlad(folder, pad="<s>"),
    "pile_t5": pile_t5,
    "pile_t5, pads, upwards": lambda folder: pile_t5(folder, pad=True, upwards=True),
    "codet5": codet5,
    "aya": aya,
    "flan_ul2": flan_ul2,
    "resized": resized,
    "resized, legacy false": lambda folder: resized(folder, legacy=False),
}

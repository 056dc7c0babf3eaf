"""Writes tiny random directories of the published layouts with the installed transformers, and says
what it makes of directories: `python -m tests.convert.transformers_writer write|read FOLDER
[LAYOUT …]` (written: those that are named).

Run in a process of its own, by transformers 5 and by 4.46; nothing of t5jax is imported.
"""

import json
import pathlib
import sys

import torch
import transformers

from tests.convert import foreign_tokenizers as foreign
from tests.convert.published_settings import LAYOUTS, LENGTH, OWN, SIZES, SLOW_TOO, TEXTS
from tests.convert.random_weights import randomize


def tokenizer_of(name: str, files: str, folder: pathlib.Path, *, fast: bool):
    """The layout's tokenizer, opened from its authors' files, with a user's tokens if resized."""
    if files == "byt5":
        return transformers.ByT5Tokenizer()
    foreign.LAYOUTS[files](folder)
    if files == "codet5":
        return codet5_tokenizer(folder, fast=fast)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=fast)
    if name == "resized":
        tokenizer.add_tokens(OWN)
        tokenizer.add_tokens([transformers.AddedToken("<sep>", special=True)])
    return tokenizer


def codet5_tokenizer(folder: pathlib.Path, *, fast: bool):
    """RoBERTa's of vocab.json and merges.txt; sentinels, the last first, take the space before."""
    for name in ("added_tokens.json", "special_tokens_map.json", "config.json"):
        (folder / name).unlink()
    (folder / "config.json").write_text('{"model_type": "roberta"}')
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=fast)
    names = [f"<extra_id_{i}>" for i in range(foreign.NUM_SENTINELS - 1, -1, -1)]
    tokens = [transformers.AddedToken(x, lstrip=True, special=True) for x in names]
    tokenizer.add_tokens(tokens)
    return tokenizer


def random_model(name: str, num_ids: int):
    """Every weight random; outputs are neither constant nor the inputs again."""
    kind, settings, _, (pad, eos), spare = LAYOUTS[name]
    config = getattr(transformers, f"{kind}Config")(
        **SIZES, **settings, num_decoder_layers=2, vocab_size=num_ids + spare, pad_token_id=pad,
        eos_token_id=eos, decoder_start_token_id=0,
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    tied = settings["tie_word_embeddings"]
    randomize(model, config.d_kv, tied=tied, seed=len(name))
    with torch.no_grad():
        model.shared.weight *= 0.05 if tied else 1.0
    return model.eval()


def resized_model(name: str, tokenizer):
    """The layout's model; with rows for a user's tokens, and up to a multiple of 8, if resized."""
    if name != "resized":
        return random_model(name, len(tokenizer))
    model = random_model(name, len(tokenizer) - len(OWN) - 1)
    model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=8, mean_resizing=False)
    with torch.no_grad():  # the table is the logits' too: no row may win everywhere
        model.shared.weight.normal_(generator=torch.Generator().manual_seed(5)).mul_(0.05)
    return model


def facts(folder: pathlib.Path) -> dict:
    """Ids of TEXTS, special ids, added tokens, greedy outputs, logits."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).float().eval()
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]
    start, eos = model.config.decoder_start_token_id, model.config.eos_token_id
    # t5jax's ByT5 has bytes alone: its sentinels are the top ones.
    num_said = 259 if isinstance(tokenizer, transformers.ByT5Tokenizer) else len(tokenizer)
    spare = list(range(num_said, model.config.vocab_size))
    outputs = []
    for row in ids:
        rows = torch.tensor([[*row, eos]])
        said = model.generate(
            rows, attention_mask=torch.ones_like(rows), max_new_tokens=LENGTH, do_sample=False,
            num_beams=1, suppress_tokens=spare or None,
        )  # fmt: skip
        outputs.append(said[0, 1:].tolist())
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor([[11, 3, 8, 5, 30, 9, eos]]),
            decoder_input_ids=torch.tensor([[start, 5, 7]]),
        ).logits
    generation = model.generation_config
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return {
        "version": transformers.__version__, "names": names, "ids": ids, "outputs": outputs,
        "logits": logits.tolist(), "added": tokenizer.get_added_vocab(),
        "special": [model.config.pad_token_id, start, eos],
        "generation": [generation.decoder_start_token_id, generation.eos_token_id],
        "tokenizer": [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id],
        "class": type(tokenizer).__name__, "num_ids": len(tokenizer),
    }  # fmt: skip


def write(root: pathlib.Path, names: list[str]) -> None:
    for name in names:
        files = LAYOUTS[name][2]
        for kind in ("fast", "slow"):
            folder, authors = root / f"{name}-{kind}" / "hf", root / f"{name}-{kind}" / "authors"
            authors.mkdir(parents=True)
            tokenizer = tokenizer_of(name, files, authors, fast=kind == "fast")
            tokenizer.save_pretrained(folder)
            resized_model(name, tokenizer).save_pretrained(folder)
            if transformers.__version__ > "5" or name not in SLOW_TOO:
                break


def main() -> None:
    action, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    torch.set_num_threads(1)
    if action == "write":
        write(folder, sys.argv[3:])
    which = {"write": "hf", "read": "back"}[action]
    found = {x.parent.name: facts(x) for x in sorted(folder.glob(f"*/{which}")) if x.is_dir()}
    (folder / f"{which}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()

"""Writes tiny random directories of the published layouts with the installed transformers, and says
what it makes of directories: `python -m tests.convert.transformers_writer write|read FOLDER`.

Run in a process of its own, by transformers 5 and by 4.46; nothing of t5jax is imported.
"""

import json
import pathlib
import sys

import torch
import transformers

from tests.convert import foreign_tokenizers as foreign

LENGTH = 20
TEXTS = (
    "The river {runs} fast.\nA tree", "<extra_id_0> the mill <extra_id_1>.", "a<sep>b {",
    "Größe, Москва, 北京, 🙂", "two  spaces", "1 < 2 and [3]",
)  # fmt: skip
SIZES = {"d_model": 18, "num_heads": 3, "d_kv": 5, "d_ff": 22, "num_layers": 3, "dropout_rate": 0.0}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
SILU = {"feed_forward_proj": "gated-silu", "tie_word_embeddings": False}
PLAIN = {"feed_forward_proj": "relu", "tie_word_embeddings": True}
OWN = ["{", "}", "[new]"]
# name -> (model's class, its settings, the tokenizer's files, (pad, eos), spare rows of the table)
LAYOUTS = {
    "t5": ("T5", PLAIN, "flan_ul2", (0, 1), 28),
    "t5_1_1": ("T5", GATED, "flan_ul2", (0, 1), 27),
    "lm_adapted": ("T5", GATED, "flan_ul2", (0, 1), 26),
    "flan_t5": ("T5", GATED, "flan_ul2", (0, 1), 25),
    "flan_ul2": ("T5", SILU, "flan_ul2", (0, 1), 24),
    "mt5": ("MT5", GATED, "aya", (0, 1), 9),
    "umt5": ("UMT5", GATED, "flan_ul2", (0, 1), 23),
    "byt5": ("T5", GATED, "byt5", (0, 1), 0),
    "aya": ("MT5", GATED, "aya", (0, 1), 8),
    "madlad": ("T5", GATED, "madlad", (1, 2), 16),
    "pile_t5": ("UMT5", GATED, "pile_t5", (0, 2), 7),
    "codet5": ("T5", PLAIN, "codet5", (0, 2), 3),
    "codet5_plus": ("T5", GATED, "codet5", (0, 2), 5),
    "resized": ("T5", PLAIN, "flan_ul2", (0, 1), 0),
}


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
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(torch.empty(num_ids + spare, config.d_model))
    generator = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for weight, x in model.named_parameters():
            x.normal_(generator=generator)
            if "layer_norm" in weight:
                x.mul_(0.3).add_(1.0)
            elif weight.endswith(".q.weight"):
                x.mul_((x.shape[1] * config.d_kv) ** -0.5)
            elif "shared" not in weight and "relative" not in weight:
                x.mul_(x.shape[1] ** -0.5)
        model.shared.weight *= 0.05 if tied else 1.0
    return model.eval()


def facts(folder: pathlib.Path) -> dict:
    """Ids of TEXTS, special ids, added tokens, greedy outputs, logits."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).float().eval()
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]
    start, eos = model.config.decoder_start_token_id, model.config.eos_token_id
    spare = list(range(len(tokenizer), model.config.vocab_size))
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
            input_ids=torch.tensor([[*ids[0], eos]]),
            decoder_input_ids=torch.tensor([[start, 5, 7]]),
        ).logits
    generation = model.generation_config
    return {
        "version": transformers.__version__, "ids": ids, "outputs": outputs,
        "logits": logits.tolist(), "added": tokenizer.get_added_vocab(),
        "special": [model.config.pad_token_id, start, eos],
        "generation": [generation.decoder_start_token_id, generation.eos_token_id],
        "tokenizer": [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id],
        "class": type(tokenizer).__name__, "num_ids": len(tokenizer),
    }  # fmt: skip


def write(root: pathlib.Path) -> None:
    for name, (_, _, files, _, _) in LAYOUTS.items():
        for kind in ("fast", "slow"):
            folder, authors = root / f"{name}-{kind}" / "hf", root / f"{name}-{kind}" / "authors"
            authors.mkdir(parents=True)
            tokenizer = tokenizer_of(name, files, authors, fast=kind == "fast")
            tokenizer.save_pretrained(folder)
            random_model(name, len(tokenizer)).save_pretrained(folder)
            if transformers.__version__ > "5" or tokenizer.is_fast == (kind == "slow"):
                break  # one kind of tokenizer only


def main() -> None:
    action, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    torch.set_num_threads(1)
    if action == "write":
        write(folder)
    which = {"write": "hf", "read": "back"}[action]
    found = {x.parent.name: facts(x) for x in sorted(folder.glob(f"*/{which}")) if x.is_dir()}
    (folder / f"{which}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()

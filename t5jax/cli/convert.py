"""t5jax convert."""

import argparse

from t5jax.cli.command import Command, arguments_of, file_or_bucket, file_or_url, local_file

_NOTES = """\
SOURCE is recognised by its content:
  a Hugging Face directory    config.json and safetensors: T5, T5 1.1, FLAN-T5, mT5, umT5, ByT5
  a T5X checkpoint            checkpoint_N with zarr arrays, a directory of these, or one file
  a Mesh TensorFlow one       model.ckpt-N without an ending, or the directory
  a PEFT directory            LoRA over the model that --base names
  a run of t5jax              its workdir
TARGET must not exist. It is a run's workdir, for t5jax evaluate and predict, or with --to
huggingface a directory for transformers. It appears when everything is written and the logits of
both models agree; conversion.txt in it is the report, conversion.json maps every array.

examples:
  t5jax convert flan-t5-small runs/flan_t5_small
  t5jax convert t5x/t5_1_1_base/checkpoint_1000000 runs/t5_1_1_base --vocabulary spiece.model
  t5jax convert mesh/small/model.ckpt-1000000 runs/t5_small --vocabulary spiece.model
  t5jax convert runs/mine mine-hf --to huggingface --dtype bfloat16
  t5jax convert my-lora runs/lora --base flan-t5-small     PEFT's LoRA, to train on or merge
  t5jax convert runs/lora my-lora --to peft
"""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=local_file, metavar="SOURCE", help="what to convert")
    parser.add_argument(
        "target", type=file_or_bucket, metavar="TARGET",
        help="a directory that does not exist yet, or gs://BUCKET/FOLDER",
    )  # fmt: skip
    parser.add_argument(
        "--to", choices=("t5jax", "huggingface", "peft"),
        help="default: huggingface of a run, t5jax of anything else; peft: a run's LoRA factors",
    )  # fmt: skip
    parser.add_argument("--step", type=int, help="step of SOURCE; default: the newest")
    parser.add_argument(
        "--vocabulary", type=file_or_url, metavar="FILE",
        help="SentencePiece model, tokenizer.json, or t5, mt5, umt5, byt5; default: SOURCE's own",
    )  # fmt: skip
    parser.add_argument(
        "--base", type=local_file, metavar="DIR",
        help="the model under a PEFT directory: a Hugging Face directory, or a run made of it",
    )  # fmt: skip
    parser.add_argument("--extra-ids", type=int, help="sentinels on top of FILE (100)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="dtype of Hugging Face's weights (float32)"
    )
    parser.add_argument(
        "--max-shard-size", default="5GB", help="largest file of Hugging Face's weights (5GB)"
    )
    parser.add_argument(
        "--no-slots", dest="with_slots", action="store_false",
        help="without the optimizer state of T5X or Mesh TensorFlow",
    )  # fmt: skip
    parser.add_argument(
        "--reference", choices=("auto", "transformers", "golden", "numpy"), default="auto",
        help="what the logits are compared with: transformers, logits stored in SOURCE, or T5 in "
        "NumPy; auto takes the first of these that is there",
    )  # fmt: skip
    parser.add_argument(
        "--ignore-key", dest="ignored_keys", action="append", default=[], metavar="KEY",
        help="a key of config.json or generation_config.json that t5jax does not know and that, as "
        "you know, changes nothing; may be given several times",
    )  # fmt: skip


def _convert(a: argparse.Namespace, flags: list[str]) -> None:
    if flags:
        a.parser.error(f"t5jax convert takes no settings of a config: {' '.join(flags)}")
    from t5jax.commands.convert import ConvertOptions, convert_command

    convert_command(a.source, a.target, ConvertOptions(**arguments_of(ConvertOptions, a)))


CONVERT = Command(
    "convert", "from and to Hugging Face, from T5X, Mesh TensorFlow", _convert,
    options=_options, notes=_NOTES,
)  # fmt: skip

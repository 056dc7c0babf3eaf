"""A T5 1.1-shaped model of 6 M parameters on English text and translation, to be fine-tuned.

Command:   after configs/small_pretraining_short.py, which trains the vocabulary and short texts:
           t5jax cache configs/small_pretraining.py FLAGS; t5jax train the same;
           FLAGS: --data.train-files "DATA/*.jsonl.gz" --data.validation-files "DATA/c4-val*.gz"
           --data.datasets-dir DATA (WMT's English to German)
Hardware:  one CPU core, 53 minutes
Result:    docs/transfer.md
"""

from t5jax.checkpoints import CheckpointConfig
from t5jax.config import RunConfig, TrainConfig, WarmStart
from t5jax.data.config import DataConfig
from t5jax.data.registry import add_mixture
from t5jax.data.tasks import Custom, Mixture
from t5jax.data.vocabularies import SentencePieceVocabulary
from t5jax.model.config import T5Config
from t5jax.training.optimizers import AdamW
from t5jax.training.schedules import WarmupStableDecay

# Short runs need many targets a step: of T5's usual objective they would see 15 % of the text.
RATES = {
    "jsonl:span_3_50_u_u": 0.45,
    "jsonl:bert_style": 0.15,
    "jsonl:prefix_lm": 0.15,
    "wmt_t2t_ende_v003": 0.6,  # sentences, of which a row holds several
}
add_mixture(Mixture(name="small_pretraining", tasks=tuple(RATES), rate=Custom(weights=RATES)))


def model(**changes) -> T5Config:
    """As small as two cores ask for; 3 M of its parameters are in the two token tables."""
    return T5Config(
        vocab_size=8000,
        emb_dim=192,
        num_heads=3,
        mlp_dim=512,
        num_encoder_layers=3,
        num_decoder_layers=3,
        dtype="float32",
        unroll_layers="all",
        **changes,
    )


def config() -> RunConfig:
    return RunConfig(
        workdir="runs/small_pretraining",
        model=model(),
        data=DataConfig(
            mixture="small_pretraining",
            modules=("configs.small_pretraining",),
            train_files=("data/text/*.jsonl.gz",),
            validation_files=("data/text/c4-validation*.json.gz",),
            vocabulary=SentencePieceVocabulary(path="runs/words.model"),
            inputs_length=128,
            targets_length=132,
            cache_dir="runs/data",
        ),
        train=TrainConfig(
            num_train_steps=2000,
            batch_size=16,
            num_microbatches=4,
            eval_every_steps=250,
            num_eval_rows=128,
        ),
        init=WarmStart(path="runs/small_pretraining_short"),
        optimizer=AdamW(
            learning_rate=1e-2,
            rms_scaled=True,
            schedule=WarmupStableDecay(warmup_steps=100, decay_fraction=0.5),
        ),
        checkpoints=CheckpointConfig(save_every_steps=250),
    )

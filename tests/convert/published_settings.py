"""Tiny settings of the published layouts, and texts, for transformers_writer and its test."""

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
SLOW_TOO = ("t5_1_1", "aya", "resized")  # files of 4.46's slow tokenizers, which differ alike

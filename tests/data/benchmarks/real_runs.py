"""Which real rows each task is run on, and how many examples they make.

Rows are those of the folder that T5JAX_TEST_DATA names; what lies under other names there is linked
to where its task looks. Where a task's own rows are not at hand, rows of the same columns from
another set may stand in their place.
"""

from t5jax.data.registry.corpora import TEXT_TASKS

LINKS = {
    **{
        f"glue/{name}": f"glue/{name}"
        for name in ("CoLA", "SST-2", "MRPC", "STS-B", "QNLI", "WNLI")
    },
    "glue/MNLI/train.jsonl.gz": "other_tasks/snli/train_1000.jsonl.gz",
    "glue/MNLI/dev_matched.jsonl.gz": "other_tasks/snli/test_2000.jsonl.gz",
    "superglue": "superglue",
    "squad/dev-v1.1.json.gz": "squad/dev-v1.1.json.gz",
    "squad/train-v1.1.json.gz": "squad/new_wiki_train.json.gz",
    "translation/multi30k": "translation/multi30k",
    "wmt14_translate/fr-en/test.jsonl.gz": "translation/multi30k/test_2016.jsonl.gz",
    "wmt15_translate/fr-en/validation.jsonl.gz": "translation/multi30k/validation.jsonl.gz",
    "wmt19_translate/de-en/validation.jsonl.gz": "translation/newstest2015/newstest2015.jsonl.gz",
    "wmt14_translate/de-en/validation.jsonl.gz": "translation/newstest2015/newstest2015.jsonl.gz",
    "wmt16_translate/ro-en/validation.jsonl.gz": (
        "translation/newsdev2016_enro/newsdev2016.jsonl.gz"
    ),
    "wmt_t2t_translate/de-en/train.jsonl.gz": "translation/wmt_ende_opennmt/train.jsonl.gz",
    "wmt_t2t_translate/de-en/validation.jsonl.gz": (
        "translation/wmt_ende_opennmt/validation.jsonl.gz"
    ),
    "summarization/cnn_dailymail/test.jsonl.gz": (
        "summarization/cnn_dailymail_200/cnn_dailymail.jsonl.gz"
    ),
    "summarization/xsum/test.jsonl.gz": "summarization/xsum_test_1000/xsum.jsonl.gz",
    "summarization/scitldr": "summarization/scitldr",
    "definite_pronoun_resolution": "other_tasks/definite_pronoun_resolution",
    "snli": "other_tasks/snli",
    "nq_open": "other_tasks/nq_open",
}

KEYED = r"{}: (?s:.+)"
PAIRED = r"{}: (?s:.+?) {}: (?s:.+)"
QUESTION = r"question: (?s:.+) context: (?s:.+)"
ENTAILS = {"entailment", "not_entailment"}
THREE = {"entailment", "neutral", "contradiction"}
TRUE = {"True", "False"}

# task, split, examples, pattern of the inputs, targets (None: free text)
RUNS = [
    (
        "glue_cola_v002",
        "train",
        8102,
        KEYED.format("cola sentence"),
        {"acceptable", "unacceptable"},
    ),
    (
        "glue_cola_v002",
        "validation",
        939,
        KEYED.format("cola sentence"),
        {"acceptable", "unacceptable"},
    ),
    ("glue_sst2_v002", "train", 63878, KEYED.format("sst2 sentence"), {"positive", "negative"}),
    ("glue_sst2_v002", "validation", 790, KEYED.format("sst2 sentence"), {"positive", "negative"}),
    (
        "glue_mrpc_v002",
        "train",
        3497,
        PAIRED.format("mrpc sentence1", "sentence2"),
        {"equivalent", "not_equivalent"},
    ),
    (
        "glue_mrpc_v002",
        "validation",
        361,
        PAIRED.format("mrpc sentence1", "sentence2"),
        {"equivalent", "not_equivalent"},
    ),
    (
        "glue_stsb_v002",
        "train",
        5432,
        PAIRED.format("stsb sentence1", "sentence2"),
        {f"{k / 5:.1f}" for k in range(26)},
    ),
    (
        "glue_stsb_v002",
        "validation",
        1344,
        PAIRED.format("stsb sentence1", "sentence2"),
        {f"{k / 5:.1f}" for k in range(26)},
    ),
    (
        "glue_mnli_v002",
        "train",
        958,
        PAIRED.format("mnli hypothesis", "premise"),
        THREE | {"<unk>"},  # SNLI has pairs on which its annotators did not agree
    ),
    (
        "glue_mnli_matched_v002",
        "validation",
        1783,
        PAIRED.format("mnli hypothesis", "premise"),
        THREE,
    ),
    ("glue_qnli_v002", "validation", 4927, PAIRED.format("qnli question", "sentence"), ENTAILS),
    ("glue_wnli_v002", "train", 592, PAIRED.format("wnli sentence1", "sentence2"), ENTAILS),
    ("glue_wnli_v002", "validation", 60, PAIRED.format("wnli sentence1", "sentence2"), ENTAILS),
    ("glue_wnli_v002_simple_eval", "validation", 60, r"wsc: .*\*\w+\*.*", None),
    ("dpr_v001_simple", "train", 1252, r"wsc: .* \*[^*]+\*[ .,].*", None),
    ("dpr_v001_simple", "test", 510, r"wsc: .* \*[^*]+\*[ .,].*", None),
    ("super_glue_wsc_v102_simple_train", "train", 245, r"wsc: (?s:.*)\*\w+\*(?s:.*)", None),
    ("super_glue_wsc_v102_simple_eval", "validation", 102, r"wsc: (?s:.*)\*\w+\*(?s:.*)", None),
    ("super_glue_boolq_v102", "train", 8986, PAIRED.format("boolq passage", "question"), TRUE),
    ("super_glue_boolq_v102", "validation", 2934, PAIRED.format("boolq passage", "question"), TRUE),
    ("super_glue_cb_v102", "train", 233, PAIRED.format("cb hypothesis", "premise"), THREE),
    ("super_glue_cb_v102", "validation", 50, PAIRED.format("cb hypothesis", "premise"), THREE),
    (
        "super_glue_copa_v102",
        "train",
        380,
        r"copa choice1: .+ choice2: .+ premise: .+ question: (cause|effect)",
        {"choice1", "choice2"},
    ),
    (
        "super_glue_copa_v102",
        "validation",
        91,
        r"copa choice1: .+ choice2: .+ premise: .+ question: (cause|effect)",
        {"choice1", "choice2"},
    ),
    (
        "super_glue_multirc_v102",
        "train",
        312,
        r"multirc question: (?s:.+) answer: (?s:.*) paragraph: (?s:.+)",
        TRUE,
    ),
    (
        "super_glue_multirc_v102",
        "validation",
        4493,
        r"multirc question: (?s:.+) answer: (?s:.*) paragraph: (?s:.+)",
        TRUE,
    ),
    (
        "super_glue_record_v102",
        "train",
        82,
        r"record query: (?s:.*@placeholder.*) entities: .+, .+ passage: (?s:.+)",
        None,
    ),
    ("super_glue_rte_v102", "train", 2351, PAIRED.format("rte hypothesis", "premise"), ENTAILS),
    ("super_glue_rte_v102", "validation", 251, PAIRED.format("rte hypothesis", "premise"), ENTAILS),
    (
        "super_glue_wic_v102",
        "train",
        60,
        r"wic sentence1: .+ sentence2: .+ word: \S.*",
        TRUE,
    ),
    (
        "super_glue_wic_v102",
        "validation",
        582,
        r"wic sentence1: .+ sentence2: .+ word: \S.*",
        TRUE,
    ),
    ("squad_v010_allanswers", "train", 7354, QUESTION, None),
    ("squad_v010_allanswers", "validation", 10570, QUESTION, None),
    ("squad_v010_context_free", "validation", 10570, r"squad trivia question: .+", None),
    ("squad_v010_allanswers_span", "validation", 10547, QUESTION, None),
    ("cnn_dailymail_v002", "test", 180, KEYED.format("summarize"), None),
    ("xsum_v110", "test", 916, KEYED.format("summarize"), None),
    ("scitldr_v001", "train", 1899, KEYED.format("summarize"), None),
    ("scitldr_v001", "validation", 560, KEYED.format("summarize"), None),
    ("wmt14_ende_v003", "validation", 1963, KEYED.format("translate English to German"), None),
    ("wmt14_enfr_v003", "test", 1000, KEYED.format("translate English to French"), None),
    ("wmt15_enfr_v003", "validation", 1014, KEYED.format("translate English to French"), None),
    ("wmt19_ende_v003", "validation", 1963, KEYED.format("translate English to German"), None),
    ("wmt16_enro_v003", "validation", 1808, KEYED.format("translate English to Romanian"), None),
    ("wmt_t2t_ende_v003", "train", 9469, r"translate English to German: .*", None),
    ("wmt_t2t_ende_v003", "validation", 45, KEYED.format("translate English to German"), None),
    ("multi30k_ende", "train", 27561, KEYED.format("translate English to German"), None),
    ("multi30k_enfr", "test", 1000, KEYED.format("translate English to French"), None),
    ("multi30k_deen", "validation", 1014, KEYED.format("translate German to English"), None),
    ("rte_templates_v001", "validation", 251, r"(?s:.+)", {"yes", "no"}),
    (
        "snli_templates_v001",
        "train",
        956,
        r"(?s:.+)",
        {"yes", "no", "it is not possible to tell"},
    ),
    ("boolq_templates_v001", "validation", 2934, r"(?s:.+)", {"yes", "no"}),
    ("sst2_templates_v001", "validation", 790, r"(?s:.+)", {"positive", "negative"}),
    ("squad_templates_v001", "validation", 10570, r"(?s:.+)", None),
    ("nq_open_templates_v001", "validation", 3202, r"(?s:.+)", None),
    ("multi30k_ende_templates_v001", "validation", 1014, r"(?s:.+)", None),
    ("cnn_dailymail_templates_v001", "test", 180, r"(?s:.+)", None),
]

# Plain text, and next sentences from it: task, split, documents (examples), settings. Files are of
# the folder of real data; MADE are its rows in formats of which it has no file.
C4 = "text/c4/en/c4-{}.*.json.gz"
MADE = {
    "made/wikinews.parquet": "text/wikinews/wikinews.jsonl.gz",
    "made/c4.arrayrecord": "text/c4_tfds/c4-train.tfrecord-00000-of-00001",
}
PREPARED = {"c4/en": "text/c4_tfds/c4-train.tfrecord-00000-of-00001"}  # 125 records
WIKIPEDIA, WIKINEWS = "text/wikipedia/*.jsonl.gz", "text/wikinews/wikinews.jsonl.gz"
TEXT_RUNS = [
    *[(name, "train", 125, {}) for name, task in TEXT_TASKS.items() if task.corpus == "c4"],
    *[
        ("c4_json_span_corruption", split, count, {f"{split}_files": (C4.format(split),)})
        for split, count in (("train", 904), ("validation", 899))
    ],
    ("text_span_corruption", "train", 1160, {"train_files": ("text/wikitext2_raw/*.gz",)}),
    ("jsonl_span_corruption", "train", 3556, {"train_files": (WIKIPEDIA,)}),
    ("jsonl_span_corruption", "validation", 461, {"validation_files": (WIKINEWS,)}),
    ("raw_jsonl_span_corruption", "train", 123, {"train_files": ("text/webtext/*.gz",)}),
    (
        "tsv_span_corruption",
        "train",
        63878,
        {"train_files": ("glue/SST-2/train.tsv.gz",), "text_column": "sentence"},
    ),
    ("parquet_span_corruption", "train", 461, {"train_files": ("made/wikinews.parquet",)}),
    ("tfrecord_span_corruption", "train", 125, {"train_files": ("text/c4_tfds/*",)}),
    ("arrayrecord_span_corruption", "train", 125, {"train_files": ("made/c4.arrayrecord",)}),
    ("c4_next_sentence_prediction", "train", 1578, {}),
    ("jsonl_next_sentence_prediction", "train", 11837, {"train_files": (C4.format("train"),)}),
    ("text_next_sentence_prediction", "train", 7336, {"train_files": ("text/wikitext2_raw/*.gz",)}),
]

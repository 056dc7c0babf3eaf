"""A data set that TFDS prepared and the benchmark's own files give a task the same examples."""

import json
import types

import pytest

from t5jax.data.benchmarks.supervised import SUPERVISED_TASKS

MULTIRC = {
    "idx": 3,
    "passage": {
        "text": "Mia baked. She sang.",
        "questions": [
            {
                "question": "Who sang?",
                "idx": 8,
                "answers": [
                    {"text": "Mia", "idx": 20, "label": 1},
                    {"text": "Tom", "idx": 21, "label": 0},
                ],
            }
        ],
    },
}
SQUAD = {
    "id": "q1",
    "title": "Tea",
    "context": "Tea is hot, café crème too.",
    "question": "What's hot?",
    "answers": {"text": ["Tea", "tea"], "answer_start": [0, 0]},
}
PAIR = {"en": "Good day.", "ro": "Bună ziua."}
BOOLQ = {"question": "is tea hot", "passage": "Tea -- hot.", "idx": 5, "label": False}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    import tensorflow_datasets as tfds

    from t5jax.data.tensorflow_import import import_tensorflow

    tf = import_tensorflow()
    text, features = tfds.features.Text(), tfds.features
    index = features.FeaturesDict({"paragraph": tf.int32, "question": tf.int32, "answer": tf.int32})
    answers = features.Sequence({"text": text, "answer_start": tf.int32})
    sets = {
        "super_glue/multirc": (
            {
                "paragraph": text,
                "question": text,
                "answer": text,
                "idx": index,
                "label": features.ClassLabel(names=["False", "True"]),
            },
            [
                {
                    "paragraph": MULTIRC["passage"]["text"],
                    "question": "Who sang?",
                    "answer": answer["text"],
                    "idx": {"paragraph": 3, "question": 8, "answer": answer["idx"]},
                    "label": answer["label"],
                }
                for answer in MULTIRC["passage"]["questions"][0]["answers"]
            ],
        ),
        "super_glue/boolq": (
            {
                "question": text,
                "passage": text,
                "idx": tf.int32,
                "label": features.ClassLabel(names=["False", "True"]),
            },
            [{**BOOLQ, "label": 0}],
        ),
        "squad/v1.1": (
            {"id": text, "title": text, "context": text, "question": text, "answers": answers},
            [SQUAD],
        ),
        "wmt16_translate/ro-en": ({"en": text, "ro": text}, [PAIR]),
    }
    root = tmp_path_factory.mktemp("tfds")
    for name, (columns, rows) in sets.items():
        write(tfds, root / name / "1.0.0", name, columns, rows)
    return root


def write(tfds, folder, name, columns, rows):
    """A prepared data set as TFDS's writers leave it: one TFRecord file, features, counts."""
    folder.mkdir(parents=True)
    builder, config = name.split("/")
    features = tfds.features.FeaturesDict(columns)
    writer = tfds.core.SequentialWriter
    info = tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(
            name=builder,
            config_name=config,
            version=tfds.core.Version("1.0.0"),
            data_dir=str(folder),
            module_name="test",
        ),
        features=features,
    )
    out = writer(info, max_examples_per_shard=100, overwrite=False)
    out.initialize_splits(["validation"])
    out.add_examples({"validation": rows})
    out.close_all()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    document = {
        "data": [
            {
                "title": "Tea",
                "paragraphs": [
                    {
                        "context": SQUAD["context"],
                        "qas": [
                            {
                                "id": "q1",
                                "question": SQUAD["question"],
                                "answers": [{"text": t, "answer_start": 0} for t in ("Tea", "tea")],
                            }
                        ],
                    }
                ],
            }
        ]
    }
    for name, content in {
        "superglue/MultiRC/val.jsonl": MULTIRC,
        "superglue/BoolQ/val.jsonl": BOOLQ,
        "squad/dev-v1.1.json": document,
        "translation/wmt16_translate/ro-en/validation.jsonl": {"translation": PAIR},
    }.items():
        path = root / name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content) + "\n")
    return root


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("super_glue_multirc_v102", 2),
        ("super_glue_boolq_v102", 1),
        ("squad_v010_allanswers", 1),
        ("squad_v010_allanswers_span", 1),
        ("wmt16_enro_v003", 1),
    ],
)
def test_same_examples(prepared, files, name, count):
    task = SUPERVISED_TASKS[name]
    made = []
    for datasets_dir, tfds_data_dir in ((None, str(prepared)), (str(files), None)):
        settings = types.SimpleNamespace(datasets_dir=datasets_dir, tfds_data_dir=tfds_data_dir)
        source = task.source(settings)
        rows = [r for s in source.shards("validation") for r in source.records("validation", s)]
        made.append([dict(example) for row in rows for example in task.examples(row)])
    assert len(made[0]) == count
    assert made[0] == made[1]

"""Rows made up for docs/tasks.md, in the columns and files of each benchmark's own download.

None is a row of a data set. Tables are written as they stand, other rows as JSON lines.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

_GLUE = {
    "CoLA/train.tsv": "kt01\t0\t*\tThe kettle have boiled dry.\n",
    "SST-2/train.tsv": "sentence\tlabel\na slow , warm film that earns its ending \t1\n",
    "MRPC/train.tsv": (
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        "1\t11\t12\tThe ferry left an hour late.\tThe boat sailed sixty minutes after its time.\n"
    ),
    "STS-B/train.tsv": (
        "index\tsentence1\tsentence2\tscore\n"
        "0\tA girl feeds the ducks.\tA child gives bread to some ducks.\t3.75\n"
    ),
    "QQP/train.tsv": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
        "0\t1\t2\tHow do I oil a gate?\tWhy does my gate squeak?\t0\n"
    ),
    "QNLI/train.tsv": (
        "index\tquestion\tsentence\tlabel\n"
        "0\tWho built the mill?\tThe mill was built by two brothers in 1790.\tentailment\n"
    ),
    "RTE/train.tsv": (
        "index\tsentence1\tsentence2\tlabel\n"
        "0\tThe bridge reopened on Monday.\tThe bridge is closed.\tnot_entailment\n"
    ),
    "WNLI/train.tsv": (
        "index\tsentence1\tsentence2\tlabel\n"
        "0\tThe vase fell off the shelf because it was crooked.\tThe shelf was crooked.\t1\n"
    ),
    "AX/diagnostic.tsv": (
        "index\tsentence1\tsentence2\n0\tNobody but Ines sang.\tInes did not sing.\n"
    ),
}
_MNLI = "index\tsentence1\tsentence2\tgold_label\n"
_GLUE["WNLI/dev.tsv"] = _GLUE["WNLI/train.tsv"]
_GLUE["MNLI/train.tsv"] = _MNLI + "0\tThe shop opens at nine.\tThe shop sells bread.\tneutral\n"
_GLUE["MNLI/dev_matched.tsv"] = _MNLI + "0\tShe sold the van.\tThe van was sold.\tentailment\n"
_GLUE["MNLI/dev_mismatched.tsv"] = _MNLI + "0\tIt rained all day.\tIt was dry.\tcontradiction\n"


def _wsc(label: bool) -> dict[str, Any]:
    text = "Mara thanked Ida because she had carried the boxes."
    spans = {"span1_text": "Ida", "span1_index": 2, "span2_text": "she", "span2_index": 4}
    return {"text": text, "target": spans, "idx": 0, "label": label}


_BOATS = "@highlight\nThe race was held on Sunday\n@highlight\nNine boats took part"
_RECORD = f"Lena Okoro won the race from Port Ansel to Greyhaven.\n{_BOATS}"
_SUPERGLUE = {
    "BoolQ/train.jsonl": {
        "question": "is the lighthouse still lit",
        "passage": "Corran Light -- The lamp was put out in 1958; the tower is a museum now.",
        "idx": 0,
        "label": False,
    },
    "CB/train.jsonl": {
        "premise": "A: Do you think she knew? B: I doubt that she had read the letter.",
        "hypothesis": "she had read the letter",
        "label": "contradiction",
        "idx": 0,
    },
    "COPA/train.jsonl": {
        "premise": "The bread did not rise.",
        "choice1": "The yeast was old.",
        "choice2": "The oven was clean.",
        "question": "cause",
        "label": 0,
        "idx": 0,
    },
    "MultiRC/train.jsonl": {
        "idx": 0,
        "passage": {
            "text": "<b>Sent 1: </b>Omar planted beans.<br><b>Sent 2: </b>Frost took them.",
            "questions": [
                {
                    "question": "What did Omar plant?",
                    "idx": 0,
                    "answers": [
                        {"text": "Beans", "idx": 0, "label": 1},
                        {"text": "Frost", "idx": 1, "label": 0},
                    ],
                }
            ],
        },
    },
    "ReCoRD/train.jsonl": {
        "idx": 0,
        "passage": {
            "text": _RECORD,
            "entities": [
                {"start": _RECORD.index(name), "end": _RECORD.index(name) + len(name) - 1}
                for name in ("Lena Okoro", "Port Ansel", "Greyhaven")
            ],
        },
        "qas": [
            {
                "query": "The boats were cheered when they reached @placeholder.",
                "answers": [{"text": "Greyhaven", "start": 0, "end": 0}],
                "idx": 0,
            }
        ],
    },
    "RTE/train.jsonl": {
        "premise": "The museum bought the clock in 1921.",
        "hypothesis": "The clock belongs to the museum.",
        "label": "entailment",
        "idx": 0,
    },
    "WiC/train.jsonl": {
        "word": "bank",
        "sentence1": "We sat on the bank.",
        "sentence2": "The bank closes at four.",
        "idx": 0,
        "label": False,
    },
    "WSC/train.jsonl": _wsc(True),
    "WSC/val.jsonl": _wsc(False),
    "AX-b/AX-b.jsonl": {
        "sentence1": "The cat did not chase the bird.",
        "sentence2": "The cat chased the bird.",
        "label": "not_entailment",
        "idx": 0,
    },
    "AX-g/AX-g.jsonl": {
        "premise": "The engineer told the visitor that she had fixed the pump.",
        "hypothesis": "The engineer had fixed the pump.",
        "label": "entailment",
        "idx": 0,
    },
}

_SQUAD = {
    "data": [
        {
            "title": "Harbour",
            "paragraphs": [
                {
                    "context": "The harbour's crane, built in 1884, can lift 40 tons.",
                    "qas": [
                        {
                            "id": "made-up",
                            "question": "When was the crane built?",
                            "answers": [{"text": "1884", "answer_start": 30}],
                        }
                    ],
                }
            ],
        }
    ]
}
_OTHERS = {
    "definite_pronoun_resolution/train.jsonl": {
        "sentence": "The cook praised the baker because he had saved the cake.",
        "pronoun": "he",
        "candidates": ["The cook", "the baker"],
        "answer": "the baker",
    },
    "trivia_qa/train.jsonl": {
        "question": "Which river runs through the town of Vell?",
        "question_id": "made-up",
        "answer": {"normalized_aliases": ["aru", "river aru"]},
        "entity_pages": {"wiki_context": ["Vell lies on the River Aru."]},
        "search_results": {"search_context": []},
    },
    "summarization/cnn_dailymail/train.jsonl": {
        "article": "A heron has nested on the town hall again. Visitors come to see it.",
        "highlights": "Heron nests on town hall again .\nVisitors come to see it .",
        "id": "made-up",
    },
    "summarization/xsum/train.jsonl": {
        "document": "The night train will run again from June. It was stopped four years ago.",
        "summary": "A night train that was stopped four years ago is to return.",
        "id": "made-up",
    },
    "summarization/scitldr/train.jsonl": {
        "document": "Do snails prefer shade? In 40 trials, 31 of them chose the dark half.",
        "summary": "Snails prefer shade.",
        "id": "made-up",
    },
    "snli/snli_1.0_train.jsonl": {
        "gold_label": "contradiction",
        "sentence1": "Two women are mending a net.",
        "sentence2": "The women are asleep.",
    },
    "nq_open/train.jsonl": {
        "question": "who painted the doors of the mill",
        "answer": ["Tomas Ferrin", "T. Ferrin"],
    },
    "translation/multi30k/train.jsonl": {
        "en": "A boy throws a stone into the lake.",
        "de": "Ein Junge wirft einen Stein in den See.",
        "fr": "Un garçon jette une pierre dans le lac.",
    },
}
_DE = {"en": "The bakery opens at six.", "de": "Die Bäckerei öffnet um sechs."}
_FR = {"en": "The ferry is late again.", "fr": "Le bac est encore en retard."}
_RO = {"en": "The key is under the stone.", "ro": "Cheia este sub piatră."}
_WMT = {
    **{f"wmt{edition}_translate/de-en": _DE for edition in ("14", "19", "_t2t")},
    **{f"wmt{edition}_translate/fr-en": _FR for edition in ("14", "15")},
    "wmt16_translate/ro-en": _RO,
}

# Below `data.datasets_dir`: text as it stands, or a row.
DATA_SETS: Mapping[str, Any] = {
    **{f"glue/{name}": table for name, table in _GLUE.items()},
    **{f"superglue/{name}": row for name, row in _SUPERGLUE.items()},
    "squad/train-v1.1.json": json.dumps(_SQUAD),
    **_OTHERS,
    **{f"{name}/train.jsonl": {"translation": row} for name, row in _WMT.items()},
}

# A document for each corpus of plain text, and one to show objectives on.
DOCUMENTS: Mapping[str, str] = {
    "c4": (
        "The baker counts her loaves at dawn, and then once more when the shop is shut; what is "
        "left goes to the school across the road, where nobody minds a crust."
    ),
    "c4_realnewslike": "The council voted on Tuesday to mend the old bridge before winter comes.",
    "c4_webtextlike": "We walked along the canal for an hour and found the lock keeper asleep.",
    "c4_noclean": "Home » Trees » Contact Our nursery sells apple trees, pears and a few plums.",
    "wikipedia": "The Vell is a short river that rises near Corran and flows into the sea.",
    "c4_json": "Rub the butter into the flour until it looks like sand, then add cold water.",
    "text": "It was late when the post came, and nobody had thought to leave a lamp.",
    "jsonl": "A good knot holds under load and still comes apart easily when you want it.",
    "raw_jsonl": (
        "Home | Opening hours | Log in\nThe library lends tools as well as books.\n"
        "The saw is never there.\nAsk Ivo, who has it.\n"
    ),
    "tsv": "The kettle sings, the cat sleeps on the stairs, and the rain will not stop.",
    "parquet": "Nine boats left the harbour in the morning and only seven were back by night.",
    "tfrecord": "She wrote the names of the hills on the map in very small blue letters.",
    "arrayrecord": "The clock in the tower strikes eleven at noon, and has done so for years.",
    "docstrings": "Returns the number of tickets that were sold on the day before the given one.",
}
OBJECTIVES_DOCUMENT = (
    "The old ferryman knew every stone in the river and could cross it at night without a light, "
    "but he would not take money from anyone who sang on the way."
)
SENTENCES = "The shop was shut. A note hung on the door. It said that the owner had gone to sea."


def words() -> list[str]:
    """All of the documents, in the order in which they first occur."""
    texts = [*DOCUMENTS.values(), OBJECTIVES_DOCUMENT]
    return list(dict.fromkeys(word for text in texts for word in text.split()))


def write_data_sets(root: pathlib.Path) -> None:
    """The files of DATA_SETS below `root`."""
    for name, content in DATA_SETS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content) + "\n"
        (root / name).write_text(text, encoding="utf-8")

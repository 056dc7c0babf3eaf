"""SQuAD and TriviaQA: padded text as T5's regular expressions make it, answers for the metric."""

import json

import pytest

from t5jax.data.benchmarks.squad import SQUAD, TASKS
from t5jax.data.benchmarks.squad_text import pad_punctuation
from t5jax.data.benchmarks.supervised import SUPERVISED_TASKS
from t5jax.data.benchmarks.trivia_qa import TASKS as TRIVIA_QA
from t5jax.data.inspect.catalog import input_format
from t5jax.data.records import BadColumn, Row
from t5jax.metrics.question_answering import span_squad

TEXT, CONTEXT_FREE, SPAN = TASKS
ROW = Row(
    {
        "id": "q-17",
        "title": "Tea",
        "context": "In Kyoto's  old town (1,200 houses)\ntea costs $3.50.",
        "question": "What's the price?",
        "answers": {"text": ["$3.50", "3.50"], "answer_start": [47, 48]},
    },
    "p",
)


def test_squad_pads_punctuation():
    (example,) = TEXT.examples(ROW)
    assert example["inputs"] == (
        "question: What ' s the price ? context: In Kyoto ' s old town ( 1 , 200 houses ) "
        "tea costs $ 3 . 50 . "
    )
    assert example["targets"] == " $ 3 . 50"
    assert example["answers"] == [" $ 3 . 50", "3 . 50"]
    assert example["id"] == "q-17"
    target = TEXT.postprocess(example["targets"], example=example, is_target=True)
    prediction = TEXT.postprocess("$3.50", example=example, is_target=False)
    assert TEXT.metrics[0]([target], [prediction])["em"] == 0.0  # "3 50" is not "350"
    assert TEXT.metrics[0]([target], ["the $ 3 . 50"]) == {"em": 100.0, "f1": 100.0}


def test_squad_without_context():
    (example,) = CONTEXT_FREE.examples(ROW)
    assert example["inputs"] == "squad trivia question: What ' s the price ? "
    assert example["targets"] == " $ 3 . 50"


def test_squad_span_counts_words_as_its_metric_does():
    (example,) = SPAN.examples(ROW)
    # In Kyoto s old town 1 200 houses tea costs 3 50
    assert example["targets"] == "start: 10 end: 11"
    target = SPAN.postprocess(example["targets"], example=example, is_target=True)
    assert set(target) == {"answers", "context"}
    assert span_squad([target], [example["targets"]]) == {"em": 100.0, "f1": 100.0}
    glued = Row({**ROW, "answers": {"text": ["own"]}}, "p")  # only a part of a word
    assert list(SPAN.examples(glued)) == []
    last = Row({**ROW, "context": "tea costs little", "answers": {"text": ["little"]}}, "p")
    assert next(iter(SPAN.examples(last)))["targets"] == "start: 2 end: 2"


def test_punctuation_padding_equals_tensorflows():
    from t5jax.data.tensorflow_import import import_tensorflow

    tf = import_tensorflow()
    texts = [
        "Beyoncé’s naïve café – 3 m² (5 %)",
        "snake_case\tand\u00a0no-break\u2003space\x0bthere",
        "中文 text, ünïcödé; “quotes”…",
        "  two  spaces  ",
        "",
    ]
    padded = tf.strings.regex_replace(tf.constant(texts), r"(\W)", r" \1 ")
    expected = tf.strings.regex_replace(padded, r"\s+", " ").numpy()
    assert [pad_punctuation(text) for text in texts] == [text.decode() for text in expected]


@pytest.mark.parametrize(
    ("text", "non_word", "ascii_punctuation"),
    [
        ("Queñua", "Que ñ ua", "Queñua"),
        ("file_name", "file_name", "file _ name"),
        ("Beyoncé’s 3.5 €", "Beyonc é ’ s 3 . 5 € ", "Beyoncé’s 3 . 5 €"),
        ("a\u00a0b", "a \u00a0 b", "a\u00a0b"),
        ("(x)", " ( x ) ", " ( x ) "),
    ],
)
def test_both_rules_of_punctuation(text, non_word, ascii_punctuation):
    assert pad_punctuation(text) == pad_punctuation(text, "non_word") == non_word
    assert pad_punctuation(text, "ascii_punctuation") == ascii_punctuation


def test_ascii_punctuation_equals_tensorflows():
    from t5jax.data.tensorflow_import import import_tensorflow

    tf = import_tensorflow()
    texts = [
        "".join(map(chr, range(1, 128))),
        "中文 text_1, ünï’s “quotes”…\u2003x\x0by",
        "  a  b ",
        "",
    ]
    padded = tf.strings.regex_replace(tf.constant(texts), r"([[:punct:]])", r" \1 ")
    expected = [text.decode() for text in tf.strings.regex_replace(padded, r"\s+", " ").numpy()]
    assert [pad_punctuation(text, "ascii_punctuation") for text in texts] == expected


def test_tasks_by_the_later_rule_differ_in_that_alone():
    row = Row({**ROW, "question": "What's a_b?", "context": "Queñua (tree) costs $3.50."}, "p")
    text, context_free, span, trivia = (SUPERVISED_TASKS[f"{task.name}_ascii_punctuation"]
                                        for task in (*TASKS, *TRIVIA_QA))  # fmt: skip
    (example,) = text.examples(row)
    assert example["inputs"] == (
        "question: What ' s a _ b ? context: Queñua ( tree ) costs $ 3 . 50 . "
    )
    (before,) = TEXT.examples(row)
    assert before["inputs"] == (
        "question: What ' s a_b ? context: Que ñ ua ( tree ) costs $ 3 . 50 . "
    )
    (example,) = context_free.examples(row)
    assert example["inputs"] == "squad trivia question: What ' s a _ b ? "
    (example,) = span.examples(row)
    assert example["targets"] == "start: 3 end: 4"
    assert next(iter(SPAN.examples(row)))["targets"] == "start: 5 end: 6"
    named = Row({**TRIVIA, "answer": {"normalized_aliases": ["ann lée"]}}, "p")
    named["entity_pages"] = {"wiki_context": ["By Ann Lée_1."]}
    assert [e["targets"] for e in trivia.examples(named)] == ["ann lée"]
    assert [e["targets"] for e in TRIVIA_QA[0].examples(named)] == ["ann l é e"]
    assert next(iter(trivia.eval_examples(named)))["inputs"].endswith("By Ann Lée _ 1 . ")
    assert text.metrics == TEXT.metrics
    assert input_format(text) == input_format(TEXT) == "question: <question> context: <context>"


def test_squad_document_becomes_rows():
    document = {
        "version": "1.1",
        "data": [
            {
                "title": "Tea",
                "paragraphs": [
                    {
                        "context": "Tea is hot.",
                        "qas": [
                            {
                                "id": f"q{i}",
                                "question": "Is it?",
                                "answers": [{"text": "hot", "answer_start": 7}],
                            }
                            for i in range(3)
                        ],
                    }
                ],
            }
        ],
    }
    rows = list(SQUAD.adapt(Row({"text": json.dumps(document, indent=1)}, "dev.json, line 1"), 0))
    assert [row["id"] for row in rows] == ["q0", "q1", "q2"]
    assert rows[2].place == "dev.json, line 1, question q2"
    assert rows[0]["answers"] == {"text": ["hot"], "answer_start": [7]}
    assert list(SQUAD.adapt(ROW, 0)) == [ROW]
    for broken in ('{"data": [{}]}', "not json", '{"data": 3}'):
        with pytest.raises(BadColumn, match="layout"):
            list(SQUAD.adapt(Row({"text": broken}, "p"), 0))


def test_squad_row_without_answers():
    with pytest.raises(BadColumn, match="answers"):
        list(TEXT.examples(Row({**ROW, "answers": {"text": []}}, "p")))


TRIVIA = Row(
    {
        "question": "Who wrote it?",
        "question_id": "tc_9",
        "entity_pages": {"wiki_context": ["Ann Lee (poet) wrote it.", "No name here."]},
        "search_results": {"search_context": ["It's by A. Lee, says ANN LEE."]},
        "answer": {"normalized_aliases": ["ann lee", "a lee"]},
    },
    "p",
)


def test_trivia_qa_has_an_example_per_alias_and_document():
    (task,) = TRIVIA_QA
    made = [(e["inputs"], e["targets"]) for e in task.examples(TRIVIA)]
    assert made == [
        ("question: Who wrote it ? context: Ann Lee ( poet ) wrote it . ", "ann lee"),
        ("question: Who wrote it ? context: It ' s by A . Lee , says ANN LEE . ", "ann lee"),
    ]
    evaluated = list(task.eval_examples(TRIVIA))
    assert [e["targets"] for e in evaluated] == ["ann lee"] * 3
    target = task.postprocess("", example=evaluated[0], is_target=True)
    assert target == ["ann lee", "a lee"]
    assert task.metrics[0]([target], ["A. Lee"])["em"] == 100.0
    no_answer = Row({**TRIVIA, "answer": {"normalized_aliases": []}}, "p")
    with pytest.raises(BadColumn, match="normalized_aliases"):
        list(task.eval_examples(no_answer))

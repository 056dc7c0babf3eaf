"""BLEU and chrF equal to sacrebleu's own and to the published scores of WMT21."""

import functools
import gzip
import json
import math

import pytest
import sacrebleu

from t5jax.errors import ConfigError
from t5jax.metrics.translation import bleu, chrf, sacre_bleu

SYSTEMS = ("VolcTrans-AT", "Facebook-AI", "UEdin", "Online-A", "Online-B")
REFERENCES = [
    "The barge left at nine, before the fog came down.",
    "Nobody heard the bell; the tower had fallen long ago!",
    "Salt the water — then wait.",
    "“Two miles,” she said.",
    "ab",
    "boat",
]
OUTPUTS = [
    "The barge left at nine before the fog came.",
    "Nobody heard the bell, because the tower had fallen.",
    "Salt the water, then wait",
    "Two miles, she says.",
    "",
    "the boats",
]


def test_equal_to_sacrebleu_on_texts_of_our_own():
    expected = sacrebleu.corpus_bleu(OUTPUTS, [REFERENCES], tokenize="intl", smooth_method="exp")
    assert bleu(REFERENCES, OUTPUTS) == {"bleu": expected.score}
    assert 20 < expected.score < 80
    assert expected.bp < 1
    expected = sacrebleu.corpus_bleu(OUTPUTS, [REFERENCES], tokenize="13a", lowercase=True)
    assert sacre_bleu(tokenize="13a", lowercase=True)(REFERENCES, OUTPUTS)["bleu"] == expected.score
    assert chrf(REFERENCES, OUTPUTS)["chrf"] == pytest.approx(
        sacrebleu.corpus_chrf(OUTPUTS, [REFERENCES]).score, rel=1e-12
    )


def test_smoothing_where_an_order_has_no_match():
    targets, predictions = ["a b c d e"], ["a x c y e"]
    # Precisions 3/5, then 0 of 4, 3, 2: smoothed by 1/2, 1/4, 1/8.
    expected = 100 * math.prod([3 / 5, 0.5 / 4, 0.25 / 3, 0.125 / 2]) ** 0.25
    assert bleu(targets, predictions)["bleu"] == pytest.approx(expected)


def test_case_counts_and_no_match_is_zero():
    assert bleu(["One two three four"], ["one two three four"])["bleu"] < 90
    assert bleu(["one two"], ["three"]) == {"bleu": 0.0}
    assert bleu(["one two"], [""]) == {"bleu": 0.0}
    assert chrf(["one"], [""]) == {"chrf": 0.0}
    assert chrf(["on"], ["zap"]) == {"chrf": 0.0}


def test_several_references_of_unequal_number():
    targets = [
        [a] if i % 2 else [a, b, a.lower()]
        for i, (a, b) in enumerate(zip(REFERENCES, REFERENCES[::-1], strict=True))
    ]
    streams = [[t[k] if k < len(t) else None for t in targets] for k in range(3)]
    assert (
        bleu(targets, OUTPUTS)["bleu"]
        == sacrebleu.corpus_bleu(OUTPUTS, streams, tokenize="intl").score
    )
    assert chrf(targets, OUTPUTS)["chrf"] == pytest.approx(
        sacrebleu.corpus_chrf(OUTPUTS, streams).score
    )


@functools.cache
def references(folder):
    with gzip.open(folder / "source_references.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(
    "system", [SYSTEMS[0], *(pytest.param(x, marks=pytest.mark.slow) for x in SYSTEMS[1:])]
)
def test_published_scores_of_wmt21(real_data, system):
    folder = real_data / "metrics/bleu_wmt21_ende"
    with gzip.open(folder / f"hyp.{system}.de.gz", "rt", encoding="utf-8") as file:
        outputs = file.read().split("\n")[:1002]
    scores = json.loads((folder / "expected_scores.json").read_text())[system]
    published, ours = scores["published"], scores["sacrebleu_2.6.0"]
    rows = references(folder)
    one = [row["ref_A"] for row in rows]
    assert sacre_bleu(tokenize="13a")(one, outputs)["bleu"] == pytest.approx(
        published["bleu-A"], rel=1e-12
    )
    assert chrf(one, outputs)["chrf"] == pytest.approx(published["chrf-A"], rel=1e-12)
    assert bleu(one, outputs)["bleu"] == pytest.approx(ours["bleu_A_tok_intl"], rel=1e-12)


@pytest.mark.slow
def test_published_scores_of_wmt21_with_three_references(real_data):
    folder = real_data / "metrics/bleu_wmt21_ende"
    with gzip.open(folder / "hyp.UEdin.de.gz", "rt", encoding="utf-8") as file:
        outputs = file.read().split("\n")[:1002]
    published = json.loads((folder / "expected_scores.json").read_text())["UEdin"]["published"]
    targets = [[row["ref_A"], row["ref_C"], row["ref_D"]] for row in references(folder)]
    assert sacre_bleu(tokenize="13a")(targets, outputs)["bleu"] == pytest.approx(
        published["bleu-all"], rel=1e-12
    )
    assert chrf(targets, outputs)["chrf"] == pytest.approx(published["chrf-all"], rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tokenize": "nonsense"}, "tokenize='nonsense'.*: one of 'none', 'zh', '13a', 'intl'"),
        ({"tokenize": None}, "tokenize=None"),
        ({"lowercase": "yes"}, r"sacre_bleu\(lowercase='yes'\): True or False"),
        ({"tokenise": "13a"}, "unexpected keyword argument 'tokenise'; it takes tokenize, lower"),
    ],
)
def test_settings_are_refused_when_the_metric_is_made(settings, words):
    with pytest.raises(ConfigError, match=words):
        sacre_bleu(**settings)


def test_a_tokenizer_whose_package_is_missing_is_named(monkeypatch):
    from sacrebleu.tokenizers import tokenizer_ja_mecab

    monkeypatch.setattr(tokenizer_ja_mecab, "MeCab", None)
    with pytest.raises(ConfigError, match=r"'ja-mecab'\) needs MeCab \(pip install 'sacrebleu\[ja"):
        sacre_bleu(tokenize="ja-mecab")


def test_text_without_spaces_is_noted_unless_the_tokenizer_splits_it():
    targets, predictions = ["今天天气很好", "it is 3"], ["今天天气不好", "it is 3"]
    (note,) = sacre_bleu(tokenize="13a").notes(targets, predictions)
    assert note.startswith("BLEU: 55% of the references' letters are of scripts without spaces")
    assert sacre_bleu(tokenize="zh").notes(targets, predictions) == []
    assert bleu.notes(["ein Haus am See"], ["das Haus am See"]) == []
    # Its own tokenizer splits Chinese alone.
    (note,) = sacre_bleu(tokenize="zh").notes(["วันนี้อากาศดีมาก"], ["วันนี้"])
    assert "'zh' does not split" in note
    assert "'char'" in note
    assert sacre_bleu(tokenize="13a").notes(["今 天 天 气 很 好"], ["今 天"]) == []
    by_character = sacre_bleu(tokenize="zh")(targets[:1], predictions[:1])["bleu"]
    expected = sacrebleu.corpus_bleu(predictions[:1], [targets[:1]], tokenize="zh").score
    assert by_character == pytest.approx(expected)


@pytest.mark.parametrize("text", ["오늘 날씨가 좋다", "الطقس جميل اليوم", "est très bien", "😀"])
def test_bleu_of_texts_too_short_for_it_is_noted(text):
    assert bleu([text, text], [text, text]) == {"bleu": 0.0}  # so is sacrebleu's
    (note,) = bleu.notes([text, text], [text, text])
    assert note.startswith("BLEU: all 2 references have fewer than 4 words under tokenizer 'intl'")
    assert bleu.notes([text, "four words of it"], [text, text]) == []


def test_a_tokenizer_whose_model_file_cannot_be_fetched_is_named(monkeypatch):
    from sacrebleu.tokenizers import tokenizer_spm

    def download(url, place):
        raise OSError("no network")

    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", "/nowhere")
    monkeypatch.setattr(tokenizer_spm, "download_file", download)
    with pytest.raises(
        ConfigError, match=r"'flores200'\) needs a model file .*OSError: no network"
    ):
        sacre_bleu(tokenize="flores200")

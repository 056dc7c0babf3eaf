"""C4's cleaning rules: each alone, all against the builder that made C4, and on genuine pages."""

import dataclasses
import gzip
import json
import pickle
import re
import sys
import types

import pytest

from t5jax.data.records import BadRecord
from t5jax.data.sources import Cleaned, Cleaner, CleaningCounts, CleaningRules, JsonLines
from t5jax.data.sources.sentences import split_sentences
from t5jax.errors import ConfigError, DataError

GOOD = [
    "The first line of the page is good.",
    "Is the second line a question to you?",
    'She said that it was "the third of them."',
]


@pytest.mark.parametrize(
    ("line", "rule", "setting"),
    [
        ("A line without any stop at its end", "no terminal punctuation", "terminal_punctuation"),
        ("This line only trails off in the end...", "no terminal punctuation", None),
        ("Four words are few.", "too few words", "min_words_per_line"),
        ("Please enable JavaScript to see this page.", "javascript", "javascript_lines"),
        ("Read more in our Privacy Policy and cry.", "policy", "policy_lines"),
        ("This site uses cookies to know you well.", "policy", "policy_lines"),
        ("A word of " + "w" * 1001 + " is in here.", "too long a word", "max_word_length"),
    ],
)
def test_a_line_is_dropped_by_its_rule_alone(line, rule, setting):
    page = "\n".join([GOOD[0], f"  {line} ", *GOOD[1:]])
    cleaner = Cleaner(CleaningRules())
    assert cleaner.clean(page) == "\n".join(GOOD)
    assert cleaner.counts.dropped_lines == {rule: 1}
    assert (cleaner.counts.lines, cleaner.counts.lines_kept) == (4, 3)
    if setting:
        lenient = Cleaner(CleaningRules(**{setting: 0}))
        assert lenient.clean(page) == "\n".join([GOOD[0], line, *GOOD[1:]])
        assert not lenient.counts.dropped_lines


@pytest.mark.parametrize(
    ("page", "rule", "lenient"),
    [
        ("\n".join([*GOOD, "Lorem ipsum dolor sit amet again."]), "lorem ipsum", "lorem_ipsum"),
        (
            "\n".join([*GOOD, "if (a) { return the value of b; }."]),
            "curly bracket",
            "curly_bracket",
        ),
        ("\n".join(GOOD[:2]), "too few sentences", "min_sentences"),
        ("Menu\nHome\nAbout", "too few sentences", None),
        ("", "too few sentences", None),
    ],
)
def test_a_page_is_dropped_by_its_rule_alone(page, rule, lenient):
    cleaner = Cleaner(CleaningRules())
    assert cleaner.clean(page) is None
    assert cleaner.counts.dropped_pages == {rule: 1}
    assert cleaner.counts.dropped_lines["in a dropped page"] == len(page.splitlines())
    if lenient:
        assert Cleaner(CleaningRules(**{lenient: 0})).clean(page) == page


def test_citation_marks_are_taken_out():
    page = "\n".join([*GOOD, "It was so[1] then[citation needed], and[edit] is so[].", "See [2a]."])
    rules = CleaningRules(min_words_per_line=0)
    cleaned = "\n".join([*GOOD, "It was so then, and is so.", "See [2a]."])
    assert Cleaner(rules).clean(page) == cleaned
    assert Cleaner(dataclasses.replace(rules, citation_marks=False)).clean(page) == page


def test_bad_words_are_words_and_may_come_from_a_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("Frobnicate\n\nfoul play\n", encoding="utf-8")
    rules = CleaningRules(bad_words=("blah",), bad_words_file=str(path))
    assert rules.all_bad_words() == ("blah", "Frobnicate", "foul play")
    cleaner = Cleaner(rules)
    for bad in (
        "There was BLAH in here again.",
        "Here they frobnicate, and stop.",
        "It was foul play, all of it.",
    ):
        assert cleaner.clean("\n".join([*GOOD, bad])) is None
    assert cleaner.counts.dropped_pages == {"bad word": 3}
    assert cleaner.clean("\n".join([*GOOD, "The blahs are no such words."])) is not None
    before = rules.fingerprint()
    path.write_text("other\n", encoding="utf-8")
    assert rules.fingerprint() != before
    for content, message in (
        (b"\n\n", "holds no words"),
        (b"a\n\xff\n", "line 2: not valid UTF-8"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            Cleaner(rules)


def test_language_is_that_of_the_detector():
    seen = []

    def detector(text):
        seen.append(text)
        return ("de", 1.0) if "Zeile" in text else ("en", 0.98 if "unsure" in text else 0.99)

    cleaner = Cleaner(CleaningRules(language="en", detector=detector))
    assert cleaner.clean("\n".join(GOOD)) == "\n".join(GOOD)
    assert cleaner.clean("\n".join([*GOOD, "Das ist eine Zeile auf Deutsch."])) is None
    assert cleaner.clean("\n".join([*GOOD, "This makes it all too unsure."])) is None
    assert cleaner.counts.dropped_pages == {"another language": 1, "unsure language": 1}
    assert seen[0] == "\n".join(GOOD)


def test_langdetect_is_required_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "langdetect", None)
    with pytest.raises(ConfigError, match=r"pip install langdetect.*detector of your own"):
        Cleaner(CleaningRules(language="en"))
    fake = types.SimpleNamespace(
        DetectorFactory=types.SimpleNamespace(seed=None),
        LangDetectException=RuntimeError,
        detect_langs=lambda text: [types.SimpleNamespace(lang="en", prob=0.995)],
    )
    monkeypatch.setitem(sys.modules, "langdetect", fake)
    assert Cleaner(CleaningRules(language="en")).clean("\n".join(GOOD)) is not None
    assert Cleaner(CleaningRules(language="de")).clean("\n".join(GOOD)) is None
    assert fake.DetectorFactory.seed == 0


def test_genuine_langdetect_tells_languages_apart():
    pytest.importorskip("langdetect")
    german = "Das ist die erste Zeile dieser Seite. Sie ist auf Deutsch geschrieben.\nUnd das auch."
    rules = CleaningRules(language="en", min_words_per_line=0)
    assert Cleaner(rules).clean("\n".join(GOOD)) == "\n".join(GOOD)
    assert Cleaner(rules).clean(german) is None
    assert Cleaner(dataclasses.replace(rules, language="de")).clean(german) == german


A, B, C, D, E, F, G = (f"This is the sentence {letter} of the page." for letter in "ABCDEFG")


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ([f"{A} {B}\n{C}", f"{D}\n{A} {B}\n{C} {E} {F}"], [f"{A} {B}\n{C}", f"{D}\n{E} {F}"]),
        ([f"{A} {B}\n{C}", f"{A}\n{B.upper()}  {C}\n{D}"], [f"{A} {B}\n{C}", None]),
        ([f"{A} {B} {C}", f"{A} {B} {D}"], [f"{A} {B} {C}", f"{A} {B} {D}"]),
        ([f"{A} {B} {C} {D} {A} {B} {C}"], [f"{A} {B} {C} {D}"]),
        ([f"{A} {A} {A} {A}"], [f"{A} {A} {A} {A}"]),
        ([f"{A} {A} {A} {A} {A} {A}"], [f"{A} {A} {A}"]),
        # What a dropped page held is not remembered.
        ([f"{A} {B} {C} {{.\n{D}", f"{A} {B} {C}"], [None, f"{A} {B} {C}"]),
    ],
)
def test_spans_of_three_sentences_occur_once(pages, expected):
    cleaner = Cleaner(CleaningRules())
    assert [cleaner.clean(page) for page in pages] == expected
    kept = [page for page in expected if page]
    assert cleaner.counts.pages_kept == len(kept)
    assert cleaner.counts.lines_kept == sum(len(page.split("\n")) for page in kept)


def test_lines_occur_once_when_asked():
    cleaner = Cleaner(CleaningRules(deduplicate="lines"))
    assert cleaner.clean("\n".join([A, B, C])) == "\n".join([A, B, C])
    assert cleaner.clean("\n".join([D, B.upper(), E, F, D])) == "\n".join([D, E, F])
    assert cleaner.counts.dropped_lines == {"repeated": 2}
    assert Cleaner(CleaningRules(deduplicate="none")).clean("\n".join([A] * 5)) is not None


@pytest.mark.parametrize(
    ("line", "sentences"),
    [
        ("", []),
        ("One sentence without an end", ["One sentence without an end"]),
        ("He came. She went! Did they?  Yes.", ["He came.", "She went!", "Did they?", "Yes."]),
        ('"Stop." He did. (So he did.) 3 left.', ['"Stop."', "He did.", "(So he did.)", "3 left."]),
        ("Dr. J. Smith of the U.S. Navy, e.g. Bob, paid $3.50.", None),
        ("Version 2.0 of it. is it? yes it is.", ["Version 2.0 of it. is it? yes it is."]),
    ],
)
def test_sentences(line, sentences):
    assert split_sentences(line) == ([line] if sentences is None else sentences)


def write(path, texts):
    path.write_text("".join(json.dumps({"n": i, "text": t}) + "\n" for i, t in enumerate(texts)))
    return str(path)


def test_a_cleaned_source_keeps_rows_places_and_counts(tmp_path):
    pages = ["Menu\n" + "\n".join(GOOD), "Menu only", "\n".join([A, B, C]), "\n".join([A, B, C])]
    files = (write(tmp_path / "a.json", pages), write(tmp_path / "b.json", [*pages[2:], 5]))
    source = Cleaned(source=JsonLines(train_files=files))
    assert source.splits() == ("train",)
    assert tuple(source.shards("train")) == files
    first = list(source.records("train", files[0]))
    assert [(row["n"], row.place) for row in first] == [
        (0, f"{files[0]}, line 1"),
        (2, f"{files[0]}, line 3"),
    ]
    assert first[0]["text"] == "\n".join(GOOD)
    for _ in range(2):  # reading again counts anew, not on top
        second = list(source.records("train", files[1]))
    assert [type(record) for record in second][1:] == [BadRecord]  # a shard is cleaned alone
    total = source.total()
    assert (total.pages, total.pages_kept) == (6, 3)
    assert total.dropped_pages == {"too few sentences": 1, "repeated": 2}
    assert total.lines == 17 == total.lines_kept + sum(total.dropped_lines.values())
    assert "too few sentences" in str(total)
    copy = pickle.loads(pickle.dumps(source))
    assert copy == source
    assert list(copy.records("train", files[0])) == first
    other = Cleaned(source=source.source, rules=CleaningRules(min_sentences=5))
    fingerprints = {s.shard_fingerprint("train", files[0]) for s in (source, copy, other)}
    assert len(fingerprints) == 2
    assert "counts" not in repr(source)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_sentences": -1}, "min_sentences=-1: give 0"),
        ({"deduplicate": "pages"}, "deduplicate='pages': choose one of spans, lines, none"),
        ({"detector": lambda text: ("en", 1.0)}, "detector has no effect without language"),
        ({"min_language_probability": 99}, "min_language_probability=99: give a share"),
    ],
)
def test_invalid_rules_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        CleaningRules(**settings)


def texts_under(folder) -> list[str]:
    texts = []
    for path in sorted(folder.glob("**/*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            texts += [json.loads(line)["text"] for line in file]
    return texts


@pytest.mark.slow
def test_rules_equal_those_of_the_builder_that_made_c4(real_data, monkeypatch):
    from tensorflow_datasets.text import c4_utils

    monkeypatch.setattr(c4_utils, "_get_sentences", split_sentences)  # its own has to be fetched
    citation = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
    cleaner = Cleaner(CleaningRules(deduplicate="none"))
    texts = texts_under(real_data / "text" / "webtext") + texts_under(real_data / "text/usgov_web")
    assert len(texts) > 2000
    kept = 0
    for text in texts:
        page = c4_utils.PageFeatures(
            url="", text=text, content_type="", content_length="", timestamp=""
        )
        theirs = [
            page.text
            for page in c4_utils.clean_page(
                page, citation_regex=citation, counter_inc_fn=lambda *counted: None
            )
        ]
        ours = cleaner.clean(text)
        assert ([] if ours is None else [ours]) == theirs
        kept += ours is not None
    assert 0 < kept < len(texts)
    assert len(cleaner.counts.dropped_lines) >= 5


@pytest.mark.slow
def test_c4_passes_nearly_unchanged_and_raw_pages_do_not(real_data):
    folder = real_data / "text"
    c4 = JsonLines(train_files=(f"{folder}/c4/en/c4-*.json.gz",))
    raw = JsonLines(train_files=(f"{folder}/webtext/*.jsonl.gz",))
    unchanged = {}
    for name, source in (("c4", c4), ("raw", raw)):
        cleaned = Cleaned(source=source)
        before, after = {}, {}
        for shard in source.shards("train"):
            before |= {row.place: row["text"] for row in source.records("train", shard)}
            after |= {row.place: row["text"] for row in cleaned.records("train", shard)}
        total = cleaned.total()
        assert (total.pages, total.pages_kept) == (len(before), len(after))
        assert total.pages == total.pages_kept + sum(total.dropped_pages.values())
        assert total.lines == total.lines_kept + sum(total.dropped_lines.values())
        same = sum(before[place] == text for place, text in after.items())
        unchanged[name] = same / len(before)
    assert unchanged["c4"] > 0.985
    assert unchanged["raw"] < 0.02


def test_counts_add_up():
    total = CleaningCounts()
    for _ in range(3):
        cleaner = Cleaner(CleaningRules())
        cleaner.clean("\n".join([*GOOD, "Menu"]))
        cleaner.clean("Menu")
        total.add(cleaner.counts)
    assert (total.pages, total.pages_kept, total.lines, total.lines_kept) == (6, 3, 15, 9)
    assert total.dropped_lines == {"no terminal punctuation": 3, "in a dropped page": 3}

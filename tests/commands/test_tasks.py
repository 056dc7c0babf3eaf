"""`t5jax tasks`: the list, one task with its examples and lengths, a mixture, and the page."""

import html.parser
import json
import pathlib
import re
import subprocess
import sys

import pytest

from t5jax.cli import main
from t5jax.data import registry
from t5jax.data.benchmarks.supervised import SUPERVISED_TASKS
from t5jax.data.inspect.catalog import entry
from t5jax.data.objectives import OBJECTIVES
from t5jax.data.registry.builtin import TABLE
from t5jax.data.registry.corpora import CORPORA

ASK = """
from t5jax.data.sources import JsonLines
from t5jax.data.tasks import Equal, ExampleTask, Mixture
from t5jax.data.registry import add_mixture, add_task
from t5jax.metrics.classification import accuracy

def asked(row):
    "`ask: <question>` -> the answer."
    yield {"inputs": "ask: " + row.text("question"), "targets": row.text("answer")}

add_task(ExampleTask(
    name="my_questions", description="questions <b>of mine</b>", examples=asked,
    source=lambda data: JsonLines(train_files=("FILE",)), metrics=(accuracy,), num_examples=4321,
    splits=("train",),
))
add_mixture(Mixture(
    name="my_mix", tasks=("my_questions", "docstrings:iid_denoising"), rate=Equal(),
))
"""

SEQIO = """
import seqio
from t5jax.data.objectives import SpanCorruption
from t5jax.data.seqio_bridge.vocabularies import TextVocabulary
from t5jax.data.seqio_bridge.span_corruption import SpanCorruptionPreprocessor
from t5jax.data.vocabularies import ByteVocabulary

vocabulary = TextVocabulary(ByteVocabulary(extra_ids=100))

def right(targets, predictions):
    return {"right": 1.0}

def add(name, features, *steps, **more):
    seqio.TaskRegistry.add(
        name,
        source=seqio.TextLineDataSource({"train": "FILE"}),
        preprocessors=[
            lambda lines: lines.map(lambda line: {name: line for name in features}),
            seqio.preprocessors.tokenize, *steps, seqio.preprocessors.append_eos_after_trim,
        ],
        output_features={n: seqio.Feature(vocabulary) for n in ("inputs", "targets")},
        **more,
    )

add("my_recipes", ["inputs", "targets"],
    SpanCorruptionPreprocessor(SpanCorruption(mean_noise_span_length=5.0)))
add("my_copies", ["inputs", "targets"], metric_fns=[right])
"""

EVIL = "</span><script>alert('eggs')</script> & <extra_id_0> beat"


def tasks(capsys, *words: str) -> str:
    assert main(["tasks", *words]) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def mine(tiny_text, tmp_path_factory):
    """A folder with a module of tasks and 29 rows of them; the flags that name it."""
    folder = tmp_path_factory.mktemp("mine")
    rows = [{"question": f"{n} eggs " * n, "answer": "yes no"[: 1 + n % 6]} for n in range(1, 29)]
    rows.append({"question": EVIL, "answer": "no\nand yes"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)))
    (folder / "recipes.txt").write_text("Beat the eggs with the sugar until pale.\n" * 50)
    (folder / "my_tasks.py").write_text(ASK.replace("FILE", str(folder / "rows.jsonl")))
    (folder / "my_seqio.py").write_text(SEQIO.replace("FILE", str(folder / "recipes.txt")))
    (folder / "mine.py").write_text(
        (tiny_text / "tiny.py").read_text().replace('mixture="text', 'modules=(), mixture="text')
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder
    for name in ("my_tasks", "my_seqio"):  # other tests have modules of these names
        sys.modules.pop(name, None)


@pytest.fixture
def flags(mine, tiny_text):
    return ["--config", str(tiny_text / "tiny.py"), "--data.modules", "my_tasks"]


# ---- the list


def test_the_list_names_everything(capsys):
    said = tasks(capsys)
    for name, task in TABLE.items():
        assert f"\n  {name} " in said or f"\n  {name}\n" in said, name
        assert task.description[:60] in said
    for name in (*CORPORA, *OBJECTIVES, "ul2"):
        assert re.search(rf"[ ]{re.escape(name)}(,|\n)", said.split("CORPUS:OBJECTIVE")[1]), name
    for line in (
        "8,551  matthews_corrcoef\n",
        " · cola sentence: <sentence>\n",
        " · squad trivia question: <question>\n",
        " · translate English to German: <text>\n",
        "29 tasks\n",
    ):
        assert line in said
    assert max(map(len, said.splitlines())) <= 100
    groups = [line for line in said.splitlines() if line and line[0] != " "]
    assert groups.index("plain text") < groups.index("GLUE") < groups.index("mixtures")


def test_the_list_needs_neither_tensorflow_nor_jax():
    program = "import sys; from t5jax.cli import main; assert main(['tasks']) == 0\n"
    program += (
        "heavy = {'tensorflow', 'seqio', 'tensorflow_datasets', 'jax'} & sys.modules.keys()\n"
    )
    program += "sys.exit(f'imported {heavy}' if heavy else 0)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "docstrings_span_corruption" in ended.stdout


def test_a_filter_looks_at_names_descriptions_and_metrics(capsys):
    said = tasks(capsys, "--filter", "ROMANIAN")
    assert "wmt16_enro_v003" in said
    assert "wmt14_ende_v003" not in said
    assert "glue_stsb_v002" in tasks(capsys, "--filter", "pearson")


def test_the_list_as_json(capsys):
    found = {one["name"]: one for one in json.loads(tasks(capsys, "--json"))}
    assert found.keys() - set(registry.own_names()) == TABLE.keys()  # other tests add theirs
    cola = found["glue_cola_v002"]
    assert (cola["num_examples"], cola["metrics"]) == (8551, ["matthews_corrcoef"])
    assert found["c4_v220_prefix_lm"]["objective"] == "prefix_lm"
    assert found["squad_trivia_qa_equal"]["tasks"] == ["squad_v010_allanswers", "trivia_qa_v010"]


def test_the_list_with_a_config_has_the_users_own(capsys, flags):
    said = tasks(capsys, *flags)
    own = said.split("\nplain text")[0]
    assert own.startswith("your own\n")
    assert "  my_questions                                         4,321  accuracy\n" in own
    assert "      questions <b>of mine</b> · ask: <question>\n" in own
    assert "  my_mix                                                      2 tasks\n" in own


# ---- one task


def test_a_task_without_a_config_is_described(capsys):
    said = tasks(capsys, "squad_v010_allanswers")
    assert said.startswith("squad_v010_allanswers: SQuAD v1.1, the best over all answers\n")
    assert "inputs      question: <question> context: <context>\n" in said
    assert "examples    87,599 to train on\n" in said
    assert "settings    data.datasets_dir (optional), data.tfds_data_dir (optional)\n" in said
    assert "--config CONFIG" in said
    source = "source      squad/ or squad/v1.1/ below data.datasets_dir; if that is not set, TFDS's"
    assert source in said
    assert "TFDS" not in tasks(capsys, "multi30k_ende")
    described = json.loads(tasks(capsys, "c4:span_3_50_u_u", "--json"))
    assert described["objective"] == "span_3_50_u_u"


def test_every_task_with_examples_says_what_its_inputs_look_like_and_where_rows_come_from():
    for name, task in SUPERVISED_TASKS.items():
        about = entry(task)
        assert about.input_format, name
        assert about.source or "next_sentence" in name, name


def test_the_objective_is_the_one_in_force(tiny_text, capsys):
    words = ["text:iid_15_u_u", "--config", str(tiny_text / "tiny.py")]
    assert "  objective   iid_denoising\n" in tasks(capsys, *words)
    words += ["--data.objective", "prefix_lm"]
    said = tasks(capsys, *words)
    own = "prefix_lm, from data.objective; the task's own is iid_denoising"
    assert f"  objective   {own}\n" in said
    assert "<extra_id_0>" not in said
    found = json.loads(tasks(capsys, *words, "--json"))
    assert (found["objective"], found["own_objective"]) == ("prefix_lm", "iid_denoising")
    assert found["source"].startswith("TextFiles(train_files=(")


def test_rows_of_text_come_from_the_configs_files(tiny_text, capsys):
    words = ["text_span_corruption", "--config", str(tiny_text / "tiny.py"), "--examples", "2"]
    said = tasks(capsys, *words)
    assert said.startswith("text_span_corruption: your .txt files")
    rows = said.split("\nmeasured")[0].split("\nrow ")[1:]
    assert len(rows) == 2
    texts = (path.read_text(encoding="utf-8") for path in sorted(tiny_text.glob("train-*.txt")))
    text = "".join(texts).replace("\n", "")
    for row in rows:
        inputs, targets, original = row.splitlines()[1:4]
        assert inputs.startswith("  inputs      61 tokens  ")
        assert targets.startswith("  targets     14 tokens  <extra_id_0>")
        original = original.split("original [[hidden]]    ")[1]
        assert original.count("[[") == 3
        assert original.replace("[[", "").replace("]]", "").replace("\\n", "") in text
    assert "cut into rows of 67 tokens before the objective: nothing is" in said
    assert re.search(r"documents, by tokens\n +0 to .*█", said)
    assert "inputs: 61 tokens, all of them" in said


def test_a_mixtures_config_and_other_flags_serve_for_a_task(flags, capsys):
    said = tasks(capsys, "my_questions", *flags, "--data.targets-length", "5")
    assert "example 0 of train\n  inputs      52 tokens  ask: </span><script>alert" in said
    assert "  targets      5 tokens  no\\na\n" in said
    assert "measured on all 29 examples of train\n" in said
    assert "cut" not in said.split("measured")[0]
    found = json.loads(
        tasks(capsys, "my_questions", *flags, "--data.targets-length", "5", "--json")
    )
    lengths = [len(f"ask: {n} eggs " + f"{n} eggs " * (n - 1)) + 1 for n in range(1, 29)]
    lengths.append(len(f"ask: {EVIL}") - len("<extra_id_0>") + 1 + 1)
    assert found["lengths"]["inputs"]["quantiles"]["100"] == max(lengths)
    assert found["lengths"]["inputs"]["truncated"] == sum(n > 61 for n in lengths) / 29
    assert 0.1 < found["lengths"]["targets"]["truncated"] < 0.9
    assert found["metrics"] == ["accuracy"]


@pytest.mark.slow
def test_tasks_that_seqio_knows(mine, tiny_text, capsys):
    flags = ["--config", str(tiny_text / "tiny.py"), "--data.modules", "my_seqio"]
    said = tasks(capsys, *flags)
    own = said.split("registered with seqio\n")[1].split("\n\n")[0]
    assert re.search(r"my_copies +right\n", own)
    assert re.search(r"my_recipes +span_5_15_u_u\n", own)
    said = tasks(capsys, "my_recipes", *flags, "--examples", "1")
    assert "original [[hidden]]    Beat the eggs" in said
    assert "measured on all 50 documents of train" in said
    said = tasks(capsys, "my_copies", *flags, "--data.targets-length", "31", "--scan", "7")
    assert "targets     31 tokens  Beat the eggs with the sugar u\n" in said
    assert "measured on the first 7 examples of train" in said
    assert "100.00% of the targets are longer than 31" in said


# ---- mixtures


def test_a_mixture_is_shown_with_sizes_and_rates(capsys, flags):
    said = tasks(capsys, "large_translation_equal")
    assert re.search(r"wmt15_enfr_v003 +40,853,137 +50.000%", said)
    assert re.search(r"\n +share of examples\n  task +examples +step 0 on\n", said)
    assert "`t5jax train` logs the share of rows of each task as mixture/weight/TASK" in " ".join(
        said.split()
    )
    said = tasks(capsys, "all_equal")
    assert re.search(r"c4_v020_unsupervised +\? +\d", said)
    said = tasks(capsys, "c4:ul2")
    assert re.search(r"c4:ul2_s_prefix_lm_25 +\? +20.000%", said)
    said = tasks(capsys, "all_proportional")
    assert "rates depend on the sizes of c4_v020_unsupervised, which are known" in said
    found = json.loads(tasks(capsys, "my_mix", *flags, "--json"))
    assert found["sizes"] == {"my_questions": 4321, "docstrings:iid_denoising": None}
    shares = {"my_questions": 0.5, "docstrings:iid_denoising": 0.5}
    assert found["stages"] == [{"from_step": 0, "share_of_examples": shares}]


# ---- the page


class Page(html.parser.HTMLParser):
    """Checks that elements are closed in order; gathers what there is to ask about."""

    VOID = ("meta",)

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def of_class(self, name: str) -> list[dict]:
        return [a for _, a in self.tags if name in (a.get("class") or "").split()]


def page(capsys, path: pathlib.Path, *words: str) -> Page:
    said = tasks(capsys, *words, "--html", str(path))
    assert said.startswith(f"{path}: ")
    text = path.read_text(encoding="utf-8")
    found = Page(text)
    outside = [a for _, a in found.tags if {"src", "href"} & a.keys()]
    assert outside == []
    for fetched in ("http:", "https:", "url(", "@import"):
        assert fetched not in text.replace(EVIL, "")
    assert sum(tag == "script" for tag, _ in found.tags) == 1
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in (
        found.tags
    )
    assert "prefers-color-scheme: dark" in text
    return found


def test_the_page_of_examples(flags, capsys, tmp_path):
    words = ["my_questions", *flags, "--data.inputs-length", "180", "--data.targets-length", "9"]
    found = page(capsys, tmp_path / "mine.html", *words)
    shown = "".join(text for _, text in found.texts)
    assert "questions <b>of mine</b>" in shown
    assert "</span><script>alert('eggs')</script> & " in shown
    tokens = [a for a in found.of_class("t") if "data-t" in a]
    assert len(tokens) > 300
    assert any(re.fullmatch(r"id \d+, position 0, example 2", a["data-t"]) for a in tokens)
    classes = {name for a in tokens for name in a["class"].split()}
    assert {"t", "e", "w", "eos"} <= classes <= {"t", "e", "w", "eos", "sentinel"}
    weighted = [a for a in tokens if "w" in a["class"].split()]
    assert 0 < len(weighted) < len(tokens)
    assert "padding, " in shown
    assert sum(tag == "svg" for tag, _ in found.tags) == 4
    assert [text for tag, text in found.texts if text == "limit 180"]
    assert len(found.of_class("over")) > 0


def test_the_page_of_text_shows_what_is_hidden(tiny_text, capsys, tmp_path):
    words = ["text_span_corruption", "--config", str(tiny_text / "tiny.py"), "--examples", "2"]
    found = page(capsys, tmp_path / "text.html", *words)
    marks = [a["data-k"] for tag, a in found.tags if tag == "mark"]
    assert marks == ["0", "1", "2"] * 2
    blanks = [a["data-k"] for a in found.of_class("blank")]
    assert blanks == ["0", "1", "2"] * 4, "in inputs and in targets"
    sentinels = [a for a in found.of_class("sentinel") if "data-t" in a]
    assert 5 * 6 < len(sentinels) <= 6 * 6, "the last row has what is left"
    assert sum(tag == "svg" for tag, _ in found.tags) == 5
    assert sum(tag == "polyline" for tag, _ in found.tags) == 1


def test_the_page_of_a_mixture_has_bars(capsys, tmp_path):
    found = page(capsys, tmp_path / "mix.html", "large_supervised_proportional")
    widths = [a["style"] for a in found.of_class("share")]
    assert widths[0] == "width:100.0%"
    assert len(widths) == 3
    assert ("th", "share of examples") in found.texts
    unknown = page(capsys, tmp_path / "unknown.html", "all_proportional")
    assert "0.000%" not in {text for _, text in unknown.texts}


# ---- a module of the user's


def test_a_store_of_a_task_that_tokenises_itself_claims_no_bytes(mine, tiny_text, capsys, tmp_path):
    words = ["cache", str(tiny_text / "tiny.py"), "--num-processes", "1", "--data.train-files"]
    words += ["--data.validation-files", "--data.cache-dir", str(tmp_path)]
    words += ["--data.modules", "my_seqio", "--data.targets-length", "31", "--data.mixture"]
    for mixture, told in (("my_copies", False), ("my_recipes", True)):
        assert main([*words, mixture]) == 0
        said = capsys.readouterr().out
        assert f"{mixture}/train: 50 " in said
        assert ("bytes a token" in said) == told
        assert "0.00" not in said


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("my_task", "there is no my_task.py in {}, and no installed module of that name (did you "),
        (
            "my_task",
            "(did you mean my_tasks?); start t5jax in the folder that it lies in, name",
        ),
        ("others", "(did you mean below.others?)"),
        ("below.other", "there is no below/other.py in {}, and no installed"),
        ("my_tasks.py", "that is a file: write it as `import` takes it, my_tasks"),
        ("./below/others.py", "names './below/others.py': write it as `import` takes it, below.ot"),
        (".my_tasks", "write a module's name as `import` takes it: my_tasks, or folder.my_tasks"),
        ("zebra", "of that name; start t5jax in the folder"),
    ],
)
def test_a_module_that_is_not_there(mine, tiny_text, capsys, monkeypatch, module, reason):
    (mine / "below").mkdir(exist_ok=True)
    (mine / "below" / "others.py").write_text("")
    monkeypatch.chdir(mine)
    words = ["tasks", "my_questionnaire", "--config", str(tiny_text / "tiny.py")]
    assert main([*words, "--data.modules", module]) == 64
    said = capsys.readouterr().err
    assert reason.format(mine) in said
    assert "Traceback" not in said


def test_a_module_that_registers_other_names(flags, capsys):
    assert main(["tasks", "my_questionnaire", *flags]) == 64
    said = capsys.readouterr().err
    assert "no task or mixture 'my_questionnaire' is registered" in said
    own = said.split("your own, after my_tasks of data.modules: ")[1]
    assert {"my_questions", "my_mix"} <= set(own.strip().split(", "))


# ---- refusals


def test_refusals(tiny_text, flags, capsys, tmp_path):
    config = ["--config", str(tiny_text / "tiny.py")]
    for words, reason in (
        (["nothing"], "no task or mixture 'nothing' is registered"),
        (["glue_cola_v02"], "did you mean glue_cola_v002?"),
        (["text_span_corruptio", *config], "did you mean text_span_corruption?"),
        (["c4:nonsense"], "objective 'nonsense' is unknown"),
        (["--data.seed", "1"], "--data.seed changes a config: name one with --config"),
        (["c4_json_span_corruption", *config, "--data.train-files"], "data.train_files is empty"),
        (["my_questions", *flags], "data.targets_length is not set"),
        (["text_span_corruption", *config, "--examples", "0"], "--examples 0: at least 1"),
        (["text_span_corruption", *config, "--scan", "0"], "--scan 0: at least 1"),
        (["text_span_corruption", *config, "--data.seed", "-3"], "data.seed=-3"),
        (["--config", "no/such.py"], "there is no config file no/such.py"),
        (["--filter", "zebra"], "--filter zebra: no task or mixture has that text"),
        (["glue_cola_v002", "--filter", "x"], "leave it out, or glue_cola_v002"),
        (["--html", "x.html"], "--html shows one task"),
        (["glue_cola_v002", "--html", "x.html"], "add --config CONFIG"),
        (["all_equal", "--html", "x.html", "--json"], "choose one of them"),
        (["all_equal", "--html", f"{tmp_path}/no/x.html"], "x.html: there is no folder"),
    ):
        assert main(["tasks", *words]) == 64, words
        assert reason in capsys.readouterr().err
    missing = ["text_span_corruption", *config, "--split", "test"]
    assert main(["tasks", *missing]) == 65
    assert "has no split 'test': choose one of ['train', 'validation']" in capsys.readouterr().err


def test_a_folder_without_the_files(tiny_text, tmp_path, capsys):
    words = ["tasks", "text_span_corruption", "--config", str(tiny_text / "tiny.py")]
    pattern = str(pathlib.Path(tmp_path) / "*.txt")
    assert main([*words, "--data.train-files", pattern]) == 65
    assert pattern in capsys.readouterr().err


def test_help_has_examples_that_parse(capsys):
    from t5jax.cli.command_line import TASKS, _parser, split_flags

    with pytest.raises(SystemExit):
        main(["tasks", "--help"])
    said = capsys.readouterr().out
    lines = re.findall(r"^  t5jax (tasks.*?)(?:   .*)?$", said, re.MULTILINE)
    assert len(lines) == 6
    for line in lines:
        words, _ = split_flags(line.split())
        assert _parser().parse_args(words).command is TASKS
    assert "--section.field VALUE" in said

"""Named objectives: the paper's, T5's published configurations, and a grammar of names.

`<mask>_<percent>_<inputs code>_<targets code>` is the grammar of T5's names: the masks are `iid`,
`span_<mean length>`, `reg_<length>` and `reg_<shortest>-<longest>`, the codes' letters are those of
`INPUT_LETTERS` and `TARGET_LETTERS`. Any such name is understood, in the table or not.
"""

import ast
import dataclasses
import difflib
import re
from collections.abc import Mapping
from typing import Any

from t5jax.data.modules import import_named
from t5jax.data.objectives.base import Objective
from t5jax.data.objectives.codes import INPUT_LETTERS, TARGET_LETTERS
from t5jax.data.objectives.denoising import Denoising
from t5jax.data.objectives.language_modeling import (
    FullLanguageModel,
    LanguageModel,
    PackedPrefixLM,
    PrefixLM,
)
from t5jax.data.objectives.noise_masks import MASKS, IidNoise, RandomSpans, RegularSpans
from t5jax.data.objectives.span_corruption import SpanCorruption
from t5jax.errors import ConfigError, foreign_code

_KINDS: dict[str, Any] = {
    kind.name: kind
    for kind in (
        SpanCorruption,
        Denoising,
        LanguageModel,
        FullLanguageModel,
        PrefixLM,
        PackedPrefixLM,
    )
}
_CLASSES: dict[str, Any] = {kind.__name__: kind for kind in (*_KINDS.values(), *MASKS.values())}
_GRAMMAR = re.compile(
    rf"(iid|span_(?P<mean>\d+)|reg_(?P<least>\d+)(-(?P<most>\d+))?)_(?P<percent>\d\d?)"
    rf"_(?P<inputs>{'|'.join(INPUT_LETTERS)})_(?P<targets>{'|'.join(TARGET_LETTERS)})"
)
_CALL = re.compile(r"\s*(?P<name>[\w.-]+)\s*(?P<settings>\(.*\))?\s*", re.DOTALL)


def _from_grammar(name: str) -> Objective | None:
    found = _GRAMMAR.fullmatch(name)
    if found is None:
        return None
    density = int(found["percent"]) / 100
    inputs, targets = INPUT_LETTERS[found["inputs"]], TARGET_LETTERS[found["targets"]]
    if found["mean"]:
        mask = RandomSpans(noise_density=density, mean_noise_span_length=float(found["mean"]))
        if (found["inputs"], found["targets"]) == ("u", "u"):
            return SpanCorruption(**dataclasses.asdict(mask))
    elif found["least"]:
        least, most = int(found["least"]), int(found["most"] or found["least"])
        mask = RegularSpans(noise_density=density, min_span_length=least, max_span_length=most)
    else:
        mask = IidNoise(noise_density=density)
    return Denoising(mask=mask, inputs_code=inputs, targets_code=targets)


def _t5(name: str) -> Objective:
    objective = _from_grammar(name)
    assert objective is not None, name
    return objective


_PUBLISHED = (
    *("iid_15_r10s90_f", "iid_15_m_f", "iid_15_u_u", "iid_15_d_d"),
    *("iid_10_u_u", "iid_25_u_u", "iid_50_u_u"),
    *("span_2_15_u_u", "span_3_15_u_u", "span_5_15_u_u", "span_10_15_u_u"),
    *("span_3_10_u_u", "span_3_25_u_u", "span_3_50_u_u"),
    *("iid_15_s_s", "span_3_15_s_s", "iid_15_r_f", "iid_15_g_f", "iid_15_p_f"),
    *("reg_1-5_15_u_u", "reg_3_15_u_u"),
)

# By table of Raffel et al. 2020: 4 (language model to deshuffling), 5 (what is replaced and how),
# 6 (rates), 7 (span lengths).
OBJECTIVES: dict[str, Objective] = {
    "language_model": LanguageModel(),
    "full_language_model": FullLanguageModel(),
    "prefix_lm": PrefixLM(),
    "packed_prefix_lm": PackedPrefixLM(),
    "bert_style": _t5("iid_15_r10s90_f"),
    "deshuffling": Denoising(
        mask=IidNoise(noise_density=1.0), inputs_code="permute", targets_code="full_text"
    ),
    "mass_style": _t5("iid_15_m_f"),
    "iid_denoising": _t5("iid_15_u_u"),
    "replace_corrupted_spans": _t5("iid_15_u_u"),
    "drop_corrupted_tokens": _t5("iid_15_d_d"),
    "span_corruption": SpanCorruption(),
    "denoising": Denoising(),
    "lm": LanguageModel(),
    "full_lm": FullLanguageModel(),
    "all_permute": Denoising(
        mask=IidNoise(noise_density=1.0), inputs_code="permute", targets_code="full_text"
    ),
    **{name: _t5(name) for name in _PUBLISHED},
}


def parse_objective(text: str) -> Objective:
    """The objective that a name stands for, with settings of its own in brackets.

    `span_corruption`, `span_corruption(noise_density=0.25, mean_noise_span_length=5)`,
    `iid_15_u_u`, `denoising(mask=RegularSpans(noise_density=0.2), targets_code='full_text')`, and
    whatever `str` of an objective gives; of a user's module `my_module.MyObjective(size=3)`. Raises
    ConfigError for a name, setting or value that does not exist.
    """
    call = _CALL.fullmatch(text)
    if call is None:
        raise ConfigError(
            f"objective {text!r} is not a name, nor a name and settings: write for example "
            "span_corruption(noise_density=0.25)"
        )
    settings = _settings(call["settings"] or "()", text)
    if "." in call["name"]:
        return _custom(call["name"], settings, text)
    return _with_settings(_named(call["name"]), settings, text)


def objective_from_dict(record: Mapping[str, Any]) -> Objective:
    """The objective that `to_dict` recorded."""
    fields = dict(record)
    name = fields.pop("objective", None)
    if name is not None and "." in name:
        tuples = {key: tuple(x) if isinstance(x, list) else x for key, x in fields.items()}
        return _custom(name, tuples, str(record))
    if name not in _KINDS:
        raise ConfigError(f"objective {name!r} is unknown; known: {', '.join(_KINDS)}")
    if "mask" in fields:
        mask = dict(fields["mask"])
        kind = mask.pop("mask", None)
        if kind not in MASKS:
            raise ConfigError(f"noise mask {kind!r} is unknown; known: {', '.join(MASKS)}")
        fields["mask"] = _with_settings(MASKS[kind](), mask, str(record))
    return _with_settings(_KINDS[name](), fields, str(record))


def _custom(path: str, settings: dict[str, Any], text: str) -> Objective:
    """An objective of a user's module."""
    kind = import_named(path, "data.objective")
    with foreign_code(path, f"objective {text}", ConfigError):
        objective = kind(**settings)
    if not isinstance(objective, Objective):
        needed = ("name", "documents_end_with_eos", "packs", "lengths", "check", "apply")
        missing = [name for name in needed if not hasattr(objective, name)]
        raise ConfigError(
            f"objective {text}: {path} is no objective: it lacks {', '.join(missing) or 'to_dict'}"
            " (see t5jax.data.objectives.Objective, and inherit from it)"
        )
    return objective


def _named(name: str) -> Any:
    found = OBJECTIVES.get(name) or _from_grammar(name)
    if found is None and name in _CLASSES:
        found = _CLASSES[name]()
    if found is None or name in (kind.__name__ for kind in MASKS.values()):
        near = difflib.get_close_matches(name, [*OBJECTIVES, *_KINDS], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"objective {name!r} is unknown; {hint}known: {', '.join(OBJECTIVES)}")
    return found


def _with_settings(thing: Any, settings: dict[str, Any], text: str) -> Any:
    known = [field.name for field in dataclasses.fields(thing)]
    for key in settings:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"{text}: {thing.name} has no setting {key!r}{hint} (it has: "
                f"{', '.join(known) or 'none'})"
            )
    try:
        return dataclasses.replace(thing, **settings)
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"{text}: a setting has a value of the wrong type ({error})") from error


def _settings(brackets: str, text: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"_{brackets}", mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"objective {text!r}: {error.msg} in its settings") from error
    if not isinstance(call, ast.Call):
        raise ConfigError(f"objective {text!r}: its settings are not name=value, ...")
    return _keywords(call, text)


def _keywords(call: ast.Call, text: str) -> dict[str, Any]:
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        raise ConfigError(f"objective {text!r}: write its settings as name=value")
    return {str(keyword.arg): _value(keyword.value, text) for keyword in call.keywords}


def _value(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        kinds = {kind.__name__: kind for kind in MASKS.values()} | MASKS
        if node.func.id not in kinds:
            names = ", ".join(kind.__name__ for kind in MASKS.values())
            raise ConfigError(f"{text}: noise mask {node.func.id!r} is unknown; known: {names}")
        return _with_settings(kinds[node.func.id](), _keywords(node, text), text)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise ConfigError(
            f"{text}: {ast.unparse(node)!r} is not a value; give a number or a quoted string"
        ) from error

"""Special ids and decoding settings of a Hugging Face directory, as transformers' `generate` takes
them: from generation_config.json where there is one, otherwise from config.json.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from t5jax.convert.huggingface_keys import check_keys
from t5jax.decoding.config import DecodingConfig
from t5jax.decoding.logits_processors import ForcedToken, SuppressedTokens
from t5jax.errors import ConfigError
from t5jax.model.config import T5Config
from t5jax.types import EOS_ID, PAD_ID

SPECIAL_KEYS = ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id")
# transformers' key -> ours, of values that are taken over as they are.
_SAME = {
    "num_return_sequences": "num_outputs",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "repetition_penalty": "repetition_penalty",
}
DECODING_KEYS = (
    *("max_length", "max_new_tokens", "min_length", "min_new_tokens", *_SAME),
    *("num_beams", "length_penalty", "early_stopping", "do_sample", "temperature", "top_k"),
    *("top_p", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens"),
    *("begin_suppress_tokens", "bad_words_ids"),
)
_NUMBERS = ("repetition_penalty", "length_penalty", "temperature", "top_p")  # not only integers
# What `generate` does with other values than these is not done here, and is said.
NEUTRAL = {
    "num_beam_groups": (1,),
    "diversity_penalty": (0.0,),
    "typical_p": (1.0,),
    "min_p": (0.0,),
    "top_h": (),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "exponential_decay_length_penalty": (),
    "remove_invalid_values": (False,),
    "renormalize_logits": (False,),
    "sequence_bias": (),
    "token_healing": (False,),
    "guidance_scale": (1.0,),
    "watermarking_config": (),
    "penalty_alpha": (0.0,),
    "dola_layers": (),
    "constraints": (),
    "force_words_ids": (),
    "stop_strings": (),
    "max_time": (),
    "task_specific_params": ({},),
    "prefix": ("",),
}
# Of speed, of drafting by another model (which changes no greedy output), and of bookkeeping.
_HARMLESS = (
    *("cache_implementation", "cache_config", "max_cache_len", "low_memory", "use_mtp"),
    *("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule"),
    *("assistant_confidence_threshold", "prompt_lookup_num_tokens", "max_matching_ngram_size"),
    *("assistant_early_exit", "assistant_lookbehind", "target_lookbehind", "speculation_type"),
    *("assistant_ensemble_weight", "compile_config", "disable_compile", "prefill_chunk_size"),
    *("continuous_batching_config", "generation_kwargs"),
)
KEYS = frozenset((*SPECIAL_KEYS, *DECODING_KEYS, *NEUTRAL, *_HARMLESS))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """How a directory's model decodes."""

    pad_id: int | None  # None: the directory names none
    eos_ids: tuple[int, ...]  # any of which ends an output
    decoder_start_id: int
    decoding: DecodingConfig
    notes: tuple[str, ...]

    @property
    def special_ids(self) -> dict[str, int]:
        """Fields of T5Config."""
        eos_id = self.eos_ids[0]
        pad_id = -1 if self.pad_id in (None, eos_id) else self.pad_id
        return {"pad_id": pad_id, "eos_id": eos_id, "decoder_start_id": self.decoder_start_id}


def read_generation_settings(
    config: Mapping[str, Any],
    generation: Mapping[str, Any] | None,
    where: str,
    ignored: tuple[str, ...] = (),
) -> GenerationSettings:
    """The settings of config.json and, where there is one, of generation_config.json.

    Raises ConfigError where the two contradict each other about what starts or ends an output, and
    for a key or a value that t5jax does not know.
    """
    if generation is not None:
        check_keys(generation, KEYS, f"{where}/generation_config.json", ignored)
        _refuse_contradictions(config, generation, where)
    both = {key: config.get(key) for key in SPECIAL_KEYS}
    own_pad = both["pad_token_id"]
    both |= {k: x for k, x in (generation or {}).items() if k in SPECIAL_KEYS and x is not None}
    if own_pad is not None:  # generation's is what `generate` fills up ended outputs with
        both["pad_token_id"] = own_pad
    taken = config if generation is None else generation
    taken = {key: value for key, value in taken.items() if key not in ignored}
    _check_types(taken, where if generation is None else f"{where}/generation_config.json")
    if both["pad_token_id"] is None and "pad_token_id" not in config:
        both["pad_token_id"] = PAD_ID
    pad_id = _one_id(both["pad_token_id"], "pad", where)
    eos = both["eos_token_id"] if both["eos_token_id"] is not None else EOS_ID
    eos_ids = tuple(eos) if isinstance(eos, list) and eos else (eos,)
    if config.get("eos_token_id") in eos_ids:  # a text's own end; the others end an output too
        own = config["eos_token_id"]
        eos_ids = (own, *(one for one in eos_ids if one != own))
    starts = (both["decoder_start_token_id"], both["bos_token_id"], pad_id, PAD_ID)
    start = next(value for value in starts if value is not None)
    notes: list[str] = []
    eos_ids = tuple(_one_id(one, "eos", where) for one in eos_ids)
    decoding = _decoding(taken, eos_ids, notes)
    return GenerationSettings(
        pad_id=pad_id,
        eos_ids=eos_ids,
        decoder_start_id=_one_id(start, "decoder_start", where),
        decoding=decoding,
        notes=tuple(notes),
    )


def special_ids(model: T5Config) -> dict[str, Any]:
    """Of config.json and generation_config.json."""
    return {
        "pad_token_id": model.pad_id if model.pad_id >= 0 else None,
        "eos_token_id": model.eos_id,
        "decoder_start_token_id": model.decoder_start_id,
    }


def write_generation_settings(model: T5Config, decoding: DecodingConfig) -> dict[str, Any]:
    """generation_config.json: special ids, and of the decoding settings those that are not t5jax's
    defaults and that `generate` has. Sampling, whose random numbers differ, is not written."""
    ends = [ids[0] for ids in decoding.stop if len(ids) == 1 and ids[0] != model.eos_id]
    content = special_ids(model)
    if ends:
        content["eos_token_id"] = [model.eos_id, *ends]
    default = DecodingConfig()
    if decoding.max_length != default.max_length:
        content["max_new_tokens"] = decoding.max_length
    if decoding.min_length:
        content["min_new_tokens"] = decoding.min_length
    for theirs, ours in _SAME.items():
        if ours != "num_outputs" and getattr(decoding, ours) != getattr(default, ours):
            content[theirs] = getattr(decoding, ours)
    if decoding.num_beams > 1 and decoding.beam_rule == "huggingface":
        content |= {"num_beams": decoding.num_beams, "length_penalty": decoding.length_penalty}
    for processor in decoding.logits_processors:
        if isinstance(processor, SuppressedTokens) and processor.span is not None:
            if processor.span[0]:  # else it is min_new_tokens with several ends
                content["begin_suppress_tokens"] = list(processor.ids)
        elif isinstance(processor, SuppressedTokens):
            key = "begin_suppress_tokens" if processor.first_only else "suppress_tokens"
            content[key] = sorted({*content.get(key, ()), *processor.ids})
        elif isinstance(processor, ForcedToken):
            key = "forced_eos_token_id" if processor.position else "forced_bos_token_id"
            content[key] = processor.id
    return content


def _one_id(value: Any, name: str, where: str) -> Any:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ConfigError(
        f"{where}: {name}_token_id is {value!r}, which is no id; write the id of one token"
    )


def _refuse_contradictions(
    config: Mapping[str, Any], generation: Mapping[str, Any], where: str
) -> None:
    for key in ("decoder_start_token_id", "eos_token_id"):
        one, other = config.get(key), generation.get(key)
        if one is None or other is None or one == other:
            continue
        if isinstance(other, list) and one in other:
            continue
        raise ConfigError(
            f"{where}: {key} is {one} in config.json and {other} in generation_config.json: "
            "training would take the one, `generate` the other; write the right one into both"
        )
    start, bos = config.get("decoder_start_token_id"), generation.get("bos_token_id")
    if generation.get("decoder_start_token_id") is None and None not in (start, bos) != start:
        raise ConfigError(
            f"{where}: generation_config.json has bos_token_id {bos} and no decoder_start_token_id,"
            f" so that `generate` begins with {bos}; training begins with {start} (config.json): "
            "write decoder_start_token_id into both"
        )


def _check_types(taken: Mapping[str, Any], where: str) -> None:
    """ConfigError for a decoding setting of another type than `generate` takes."""
    for key in DECODING_KEYS:
        value = taken.get(key)
        if value is None or key in ("early_stopping", "do_sample"):
            continue
        if key.endswith(("suppress_tokens", "words_ids")):
            ids = value if isinstance(value, list) else [None]
            if key == "bad_words_ids":
                ids = [one for word in ids for one in (word if isinstance(word, list) else [None])]
            fits = all(isinstance(one, int) for one in ids)
        else:
            wanted = (int, float) if key in _NUMBERS else int
            fits = isinstance(value, wanted) and not isinstance(value, bool)
            fits = fits and (key != "num_beams" or value >= 1)
        if not fits:
            raise ConfigError(
                f"{where}: {key} is {value!r}, which `generate` of transformers does not take, or "
                f"t5jax does not; mend it, or leave it out with --ignore-key {key}"
            )


def _decoding(
    taken: Mapping[str, Any], eos_ids: tuple[int, ...], notes: list[str]
) -> DecodingConfig:
    """What `generate` does without arguments; what cannot be had is noted."""
    given = {key: taken[key] for key in DECODING_KEYS if taken.get(key) is not None}
    fields: dict[str, Any] = {ours: given[key] for key, ours in _SAME.items() if key in given}
    if "max_new_tokens" in given or "max_length" in given:  # which counts the start
        fields["max_length"] = max(given.get("max_new_tokens", given.get("max_length", 1) - 1), 1)
    least = given.get("min_new_tokens", max(given.get("min_length", 0) - 1, 0))
    fields["min_length"] = min(least, fields.get("max_length", least))
    beams = given.get("num_beams", 1)
    if beams > 1:
        fields |= {"num_beams": beams, "beam_rule": "huggingface"}
        fields["length_penalty"] = float(given.get("length_penalty", 1.0))
        if given.get("early_stopping"):
            notes.append("early_stopping is not done: beams end as with early_stopping=False")
    if given.get("do_sample") and beams > 1:
        notes.append("do_sample is not done: beams are searched, not drawn")
    elif given.get("do_sample"):
        fields["temperature"] = float(given.get("temperature", 1.0))
        fields |= {"top_k": given.get("top_k", 50), "top_p": float(given.get("top_p", 1.0))}
    elif fields.get("num_outputs", 1) > beams:
        del fields["num_outputs"]
    fields["logits_processors"] = tuple(_processors(given, fields, eos_ids, notes))
    for key, neutral in NEUTRAL.items():
        if taken.get(key) is not None and taken[key] not in neutral:
            shown = repr(taken[key])
            notes.append(f"{key} is not done: {shown if len(shown) < 60 else shown[:57] + '...'}")
    try:
        return DecodingConfig(**fields)
    except ConfigError as error:
        notes.append(f"the decoding settings are not taken over: {error}")
        return DecodingConfig()


def _processors(
    given: Mapping[str, Any], fields: Mapping[str, Any], eos_ids: tuple[int, ...], notes: list[str]
) -> list:
    """In the order of transformers."""
    found: list[Callable] = []
    if len(eos_ids) > 1 and fields["min_length"]:  # ours keeps away the model's EOS alone
        found.append(SuppressedTokens(ids=eos_ids, span=(0, fields["min_length"])))
    # An end that is also a bad word stays allowed.
    words = [ids for ids in given.get("bad_words_ids") or [] if ids not in [[e] for e in eos_ids]]
    if single := tuple(ids[0] for ids in words if len(ids) == 1):
        found.append(SuppressedTokens(ids=single))
    if len(single) < len(words):
        notes.append("bad_words_ids of several tokens are not done")
    if "forced_bos_token_id" in given:
        found.append(ForcedToken(id=given["forced_bos_token_id"], position=0))
    if "forced_eos_token_id" in given:
        position = fields.get("max_length", DecodingConfig().max_length) - 1
        found.append(ForcedToken(id=given["forced_eos_token_id"], position=position))
    if ids := given.get("suppress_tokens"):
        found.append(SuppressedTokens(ids=tuple(ids)))
    if ids := given.get("begin_suppress_tokens"):
        if "forced_bos_token_id" in given:  # the first token after the forced one
            found.append(SuppressedTokens(ids=tuple(ids), span=(1, 2)))
        else:
            found.append(SuppressedTokens(ids=tuple(ids), first_only=True))
    return found

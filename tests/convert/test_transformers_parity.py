"""Conversion against transformers itself: it saves, we convert both ways, it loads and says the
same."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from t5jax.checkpoints import leaves_by_path, nested, open_step
from t5jax.cli import main
from t5jax.config import from_text
from t5jax.convert.huggingface_config import model_type_for
from t5jax.decoding import DecodingConfig
from t5jax.decoding.scoring import score_targets
from t5jax.model.config import SIZES, T5Config
from t5jax.types import EOS_ID
from tests.convert.foreign import huggingface_config, read_safetensors
from tests.convert.random_weights import randomize
from tests.decoding.tiny_decoding import model_def, run
from tests.marks import long_but

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="needs the `parity` extra")
transformers = pytest.importorskip("transformers", reason="needs the `parity` extra")

PARITY = 1e-5  # of logits, over the largest
TIE = 1e-4  # nats between two outputs of which either may be the better
PROMPTS, LENGTH = 200, 8
KINDS = {
    "t5": (transformers.T5Config, transformers.T5ForConditionalGeneration),
    "mt5": (transformers.MT5Config, transformers.MT5ForConditionalGeneration),
    "umt5": (transformers.UMT5Config, transformers.UMT5ForConditionalGeneration),
}
# The families' shapes, at a size that CI has time for; T5JAX_LONG_TRIALS takes the published ones.
SHORT = {
    "num_encoder_layers": 3, "num_decoder_layers": 2, "vocab_size": 512, "emb_dim": 96,
    "mlp_dim": 160, "head_dim": 24,
}  # fmt: skip
FAMILIES = {
    "t5_small": ("t5", SHORT),
    "t5_1_1_small": ("t5", SHORT),
    "mt5_small": ("mt5", SHORT),
    "umt5_small": ("umt5", SHORT),
    "byt5_small": ("t5", {**SHORT, "vocab_size": 384}),
}
ACTIVATIONS = {"gated-silu": ("silu", "linear"), "gelu": ("gelu_exact",)}


def random_model(kind: str, cfg: T5Config, **settings):
    """Theirs, every weight random, norms too; it ends some of its outputs and not all."""
    make_config, make_model = KINDS[kind]
    model = make_model(make_config(**huggingface_config(cfg, kind, **settings)))
    randomize(model, cfg.head_dim, tied=cfg.tied_embeddings, seed=0)
    with torch.no_grad():
        model.shared.weight *= 0.2 if cfg.tied_embeddings else 1.0  # else it repeats its input
        model.lm_head.weight[EOS_ID] *= 4.0 if cfg.tied_embeddings else 2.5
        model.lm_head.weight[0] *= 0.1  # said in earnest it would be padding to us, not to them
    return model


def convert(*words) -> dict:
    assert main(["convert", *map(str, words), "--reference", "transformers"]) == 0
    return json.loads((pathlib.Path(words[1]) / "conversion.json").read_text())


@dataclasses.dataclass(frozen=True)
class ThereAndBack:
    """theirs -> run -> ours; all in `folder`."""

    kind: str
    cfg: T5Config
    folder: pathlib.Path
    reports: list[dict]

    def load(self):
        """What we wrote, by their loader: (model, what the loader says)."""
        model, info = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            self.folder / "ours", output_loading_info=True
        )
        if self.kind == "umt5":  # docs/conversion.md: transformers 5 scales its logits
            model.config.tie_word_embeddings = False
        return model.eval(), info


def there_and_back(folder: pathlib.Path, kind: str, cfg: T5Config, **settings) -> ThereAndBack:
    random_model(kind, cfg, **settings).save_pretrained(folder / "theirs")
    (folder / "theirs/tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    into = convert(folder / "theirs", folder / "run")
    return ThereAndBack(kind, cfg, folder, [into, convert(folder / "run", folder / "ours")])


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory, long_trials) -> ThereAndBack:
    kind, shape = FAMILIES[request.param]
    cfg = SIZES[request.param](**({} if long_trials else shape))
    torch.set_num_threads(2)
    return there_and_back(tmp_path_factory.mktemp(request.param), kind, cfg)


def assert_the_same_model(found: ThereAndBack) -> None:
    """Every bit of every array, logits as near as rounding, no complaint of their loader."""
    for report in found.reports:
        assert report["checks"][0]["reference"].startswith("transformers")
        assert report["checks"][0]["relative_error"] < PARITY
    want = read_safetensors(found.folder / "theirs/model.safetensors")
    got = read_safetensors(found.folder / "ours/model.safetensors")
    assert set(got) == set(want)
    assert [name for name in want if got[name].tobytes() != want[name].tobytes()] == []
    model, info = found.load()
    assert not any(info.values()), info
    # What mT5 is, is T5 with another name; its published table makes us write that.
    assert isinstance(model, KINDS[model_type_for(found.cfg)][1])
    assert model.generation_config.decoder_start_token_id == 0


def test_the_same_bits_and_logits(family):
    assert_the_same_model(family)


@pytest.mark.long
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_other_activations(tmp_path, name):
    cfg = SIZES["t5_1_1_small"](
        **SHORT, mlp_activations=ACTIVATIONS[name], tied_embeddings=name == "gelu"
    )
    assert_the_same_model(there_and_back(tmp_path, "t5", cfg, feed_forward_proj=name))


# ---- outputs


def prompts(cfg: T5Config) -> np.ndarray:
    """int32 [PROMPTS, S] of 4 to 20 ids and EOS, then padding."""
    rng = np.random.default_rng(5)
    tokens = rng.integers(2, cfg.vocab_size, (PROMPTS, 21)).astype(np.int32)
    lengths = rng.integers(4, 21, PROMPTS)
    tokens[np.arange(PROMPTS), lengths] = EOS_ID
    return np.where(np.arange(21) <= lengths[:, None], tokens, 0)


def theirs(model, tokens: np.ndarray, **settings) -> np.ndarray:
    """int32 [PROMPTS, LENGTH], padded with 0 after EOS."""
    ids = torch.from_numpy(np.int64(tokens))
    with torch.no_grad():
        said = model.generate(
            ids, attention_mask=(ids > 0).long(), max_new_tokens=LENGTH, do_sample=False, **settings
        ).numpy()[:, 1:]
    said = np.pad(said, ((0, 0), (0, LENGTH - said.shape[1])))
    after_end = np.cumsum(said == EOS_ID, axis=1) - (said == EOS_ID) > 0
    return np.where(after_end, 0, said).astype(np.int32)


def log_likelihoods(model, tokens: np.ndarray, said: np.ndarray) -> np.ndarray:
    """[PROMPTS, LENGTH] of each token by their model, 0 at padding."""
    ids, labels = (torch.from_numpy(np.int64(x)) for x in (tokens, said))
    with torch.no_grad():
        logits = model(
            input_ids=ids,
            attention_mask=(ids > 0).long(),
            decoder_input_ids=torch.nn.functional.pad(labels, (1, 0))[:, :-1],
        ).logits
        logs = torch.log_softmax(logits.double(), dim=-1).gather(2, labels[:, :, None])[:, :, 0]
    return np.where(said > 0, logs.numpy(), 0.0)


def assert_same_but_for_ties(name, beams, got, wanted, scores_of) -> None:
    """Lists the prompts whose outputs differ; either output has to be as good as the other."""
    different = np.flatnonzero((got != wanted).any(axis=1))
    worth = []
    for said in (got, wanted):
        # A greedy choice is between the tokens at which two outputs part.
        part = (got != wanted).argmax(axis=1)
        kept = np.where(np.arange(LENGTH) <= part[:, None], said, 0) if beams == 1 else said
        worth.append(scores_of(kept).sum(axis=1) / (1 if beams == 1 else (said > 0).sum(axis=1)))
    gaps = np.abs(worth[0] - worth[1])[different]
    if len(different):
        print(f"{name}, {beams} beams: ties at prompts {different.tolist()}, nats apart: {gaps}")
    assert (gaps < TIE).all(), f"{name}: prompts {different.tolist()}, {gaps} nats apart"
    assert len(different) < 0.02 * PROMPTS


@pytest.mark.slow
@pytest.mark.parametrize("family", long_but(["t5_1_1_small"], FAMILIES), indirect=True)
def test_two_hundred_outputs(family):
    """Greedy and with four beams, and what both think of the same targets."""
    cfg = dataclasses.replace(family.cfg, dtype="float32", dropout_rate=0.0)
    stored = open_step(family.folder / "run/checkpoints", "params")
    assert from_text(stored.record.content["config"]).model.vocab_size == cfg.vocab_size
    weights = nested({path: x.whole() for path, x in stored.arrays("params").items()})
    weights = jax.device_put(weights, jax.devices()[0])
    assert "token_embedder" in leaves_by_path(weights)
    (model, _), tokens = family.load(), prompts(cfg)
    scores_of = lambda said: log_likelihoods(model, tokens, said)
    for beams in (1, 4):
        wanted = theirs(model, tokens, num_beams=beams)
        config = DecodingConfig(
            max_length=LENGTH, num_beams=beams, beam_rule="huggingface", length_penalty=1.0
        )
        got, _ = run(tokens, config, num_ids=cfg.vocab_size, cfg=cfg, weights=weights)
        assert_same_but_for_ties(family.folder.name, beams, got[:, 0], wanted, scores_of)
        ends = (wanted == EOS_ID).any(axis=1).mean()
        assert 0.02 < ends < 0.98, "outputs of one kind only prove little"
        scored = score_targets((model_def(cfg),), (weights,), tokens, wanted)
        np.testing.assert_allclose(scored, scores_of(wanted), atol=1e-4)

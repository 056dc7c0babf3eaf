"""Live against transformers and torch on random weights: logits, loss, gradients."""

import jax
import numpy as np
import pytest

from t5jax.training.losses import CrossEntropy
from tests.model import tiny_t5
from tests.model.foreign_weights import from_hf
from tests.model.tiny_t5 import assert_close

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="needs the `parity` extra")
transformers = pytest.importorskip("transformers", reason="needs the `parity` extra")

PARITY = 1e-5


def random_hf_model(variant: str, seed: int = 0):
    """Their model with our tiny shape and random weights, in float64: the better reference."""
    cfg = tiny_t5.config(variant)
    tied = cfg.tied_embeddings
    kinds = {
        "1.0": (transformers.T5Config, transformers.T5ForConditionalGeneration),
        "1.1": (transformers.T5Config, transformers.T5ForConditionalGeneration),
        "umT5": (transformers.UMT5Config, transformers.UMT5ForConditionalGeneration),
    }
    make_config, make_model = kinds[variant]
    model = make_model(
        make_config(
            vocab_size=cfg.vocab_size,
            d_model=cfg.emb_dim,
            d_kv=cfg.head_dim,
            d_ff=cfg.mlp_dim,
            num_layers=cfg.num_encoder_layers,
            num_decoder_layers=cfg.num_decoder_layers,
            num_heads=cfg.num_heads,
            relative_attention_num_buckets=cfg.relpos_num_buckets,
            relative_attention_max_distance=cfg.relpos_max_distance,
            feed_forward_proj="relu" if variant == "1.0" else "gated-gelu",
            tie_word_embeddings=tied,
            dropout_rate=0.0,
            decoder_start_token_id=0,
        )
    )
    if not tied:
        # transformers 5 ties every T5 it builds itself; only the scaling of the logits is the
        # config's choice, and for umT5 not even that.
        model.lm_head.weight = torch.nn.Parameter(torch.empty(cfg.vocab_size, cfg.emb_dim))
        model.config.tie_word_embeddings = False
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, x in model.named_parameters():
            value = rng.normal(size=tuple(x.shape))
            if "layer_norm" in name:
                value = 1.0 + 0.3 * value
            elif "shared" not in name and "relative_attention_bias" not in name:
                value *= x.shape[1] ** -0.5
            x.copy_(torch.from_numpy(value))
        # So that decoding neither repeats its last token nor goes on for ever.
        model.shared.weight *= 0.2 if tied else 1.0
        model.lm_head.weight[1] *= 2.5
    return model.double().eval()


@pytest.fixture(scope="module", params=tiny_t5.VARIANTS)
def theirs(request):
    torch.set_num_threads(1)
    return request.param, random_hf_model(request.param)


def params_like(model, variant: str, what) -> dict:
    """`what` of every parameter of their model, as a tree like ours; float32."""
    tied = tiny_t5.config(variant).tied_embeddings
    weights = {name: what(x).numpy().astype(np.float32) for name, x in model.named_parameters()}
    return from_hf(weights, tied=tied)


def run_theirs(model, inputs, decoder_inputs, targets):
    """Logits of one batch [B, T, V]; the summed loss is added to the gradients."""
    inputs, decoder_inputs, targets = (torch.from_numpy(np.int64(x)) for x in
                                       (inputs, decoder_inputs, targets))  # fmt: skip
    outputs = model(
        input_ids=inputs,
        attention_mask=(inputs > 0).long(),
        decoder_input_ids=decoder_inputs,
        labels=torch.where(targets > 0, targets, -100),
    )
    loss = outputs.loss * (targets > 0).sum()
    loss.backward()
    return outputs.logits.detach().numpy(), loss.item()


def run_ours(variant: str, params: dict, batch: dict):
    """Logits, LossSums and gradients, through the loss that training uses."""
    cfg = tiny_t5.config(variant)

    @jax.jit
    def run(params):
        def loss(params):
            model = tiny_t5.build(cfg, params)
            sums = CrossEntropy(z_loss=0.0)(model, batch, None)
            return sums.objective, (model(batch), sums)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, (logits, sums)), gradients = run(params)
    return np.asarray(logits), sums, gradients


def test_unpacked(theirs):
    variant, model = theirs
    batch = tiny_t5.random_batch(tiny_t5.config(variant), rows=6, inputs=23, targets=17)
    real = batch["decoder_target_tokens"] > 0
    model.zero_grad()
    names = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
    want, want_loss = run_theirs(model, *(batch[name] for name in names))
    params = params_like(model, variant, lambda x: x.detach())
    got, sums, gradients = run_ours(variant, params, batch)
    assert_close(got[real], want[real], PARITY)
    assert float(sums.loss) == pytest.approx(want_loss, rel=1e-6)
    assert float(sums.weight) == real.sum()
    accuracy = (want.argmax(-1) == batch["decoder_target_tokens"])[real].sum()
    assert float(sums.correct) == accuracy
    assert_close(gradients, params_like(model, variant, lambda x: x.grad), PARITY)


def test_packed(theirs):
    """Our packed rows against their model run on one sequence after the other."""
    variant, model = theirs
    packed, alone, places = tiny_t5.packed_and_alone(tiny_t5.config(variant).vocab_size)
    params = params_like(model, variant, lambda x: x.detach())
    got, sums, gradients = run_ours(variant, params, packed)
    model.zero_grad()
    total = 0.0
    for row, where, number, targets in places:
        inputs = alone["encoder_input_tokens"][number]
        want, loss = run_theirs(
            model,
            inputs[None, inputs > 0],
            alone["decoder_input_tokens"][None, number, targets],
            alone["decoder_target_tokens"][None, number, targets],
        )
        assert_close(got[row, where], want[0], PARITY)
        total += loss
    assert float(sums.loss) == pytest.approx(total, rel=1e-6)
    assert_close(gradients, params_like(model, variant, lambda x: x.grad), PARITY)

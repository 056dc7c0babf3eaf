"""Live against transformers, composed of its T5 stacks: shared stacks, language model, prefix LM,
encoder; logits and gradients of every example."""

import jax
import numpy as np
import pytest

from tests.model import tiny_t5
from tests.model.foreign_weights import from_hf
from tests.model.tiny_architectures import (
    CONVERTER,
    MASK_ID,
    PACKED_ROWS,
    batch_of,
    config,
    examples,
)
from tests.model.tiny_t5 import assert_close

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="needs the `parity` extra")
pytest.importorskip("transformers", reason="needs the `parity` extra")

PARITY = 1e-5
ARCHITECTURES = ("shared_encoder_decoder", "decoder_only", "prefix_lm", "encoder_only")


def hf_model():
    from tests.model.test_t5_parity import random_hf_model

    torch.set_num_threads(1)
    return random_hf_model("1.1", seed=5)


def params_like(model, architecture, what) -> dict:
    """`what` of the weights that the architecture has, as a tree like ours."""
    weights = {name: what(x) for name, x in model.named_parameters()}
    weights = {name: x.numpy().astype(np.float32) for name, x in weights.items() if x is not None}
    zeros = {name: np.zeros(x.shape, np.float32) for name, x in model.named_parameters()}
    tree = from_hf(zeros | weights, tied=False)
    encoder, decoder = tree.pop("encoder"), tree.pop("decoder")
    if architecture == "decoder_only":
        layers = {n: x for n, x in decoder["layers"].items() if not n.startswith("cross")}
        return {**tree, "decoder": {**decoder, "layers": layers}}
    if architecture == "shared_encoder_decoder":
        return {**tree, "decoder": decoder, "encoder": encoder}
    return {**tree, ("decoder" if architecture == "prefix_lm" else "encoder"): encoder}


def share(params: dict) -> dict:
    """The decoder for both stacks."""
    return {name: x for name, x in params.items() if name != "encoder"}


def share_gradients(gradients: dict) -> dict:
    """Those of a weight of both stacks added."""
    encoder, decoder = gradients["encoder"], gradients["decoder"]
    layers = {
        name: jax.tree.map(np.add, x, encoder["layers"][name]) if name in encoder["layers"] else x
        for name, x in decoder["layers"].items()
    }
    rest = {n: jax.tree.map(np.add, decoder[n], encoder[n]) for n in ("relpos_bias", "final_norm")}
    return share(gradients) | {"decoder": {**rest, "layers": layers}}


def copy_decoder_to_encoder(model):
    theirs, ours = model.decoder, model.encoder
    del ours.block[len(theirs.block) :]
    with torch.no_grad():
        for block, other in zip(ours.block, theirs.block, strict=True):
            block.layer[0].load_state_dict(other.layer[0].state_dict())
            block.layer[1].load_state_dict(other.layer[2].state_dict())
        ours.final_layer_norm.load_state_dict(theirs.final_layer_norm.state_dict())


def their_logits(model, architecture, inputs, targets):
    """[T, V] of one example, where its tokens are predicted."""
    ids = lambda tokens: torch.from_numpy(np.int64(tokens))[None]
    if architecture == "shared_encoder_decoder":
        read = ids([0, *targets[:-1]])
        return model(input_ids=ids(inputs), decoder_input_ids=read).logits[0]
    if architecture == "encoder_only":
        hidden = model.encoder(input_ids=ids(inputs)).last_hidden_state
        return model.lm_head(hidden)[0]
    read = ids([0, *inputs, *targets][:-1])
    if architecture == "decoder_only":
        return model.lm_head(model.decoder(input_ids=read).last_hidden_state)[0]
    place = torch.arange(read.shape[1])
    sees = (place[None] <= place[:, None]) | (place[None] <= len(inputs))
    mask = torch.where(sees, 0.0, -1e9).to(torch.float64)[None, None]
    hidden = model.encoder(input_ids=read, attention_mask=mask).last_hidden_state
    return model.lm_head(hidden)[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_and_gradients(architecture):
    """Our packed rows against their stacks run on one example after the other."""
    model = hf_model()
    layers = {"num_decoder_layers": 3} if architecture == "prefix_lm" else {}
    cfg = config(architecture, "1.1", **layers)
    shared = architecture == "shared_encoder_decoder"
    if shared:
        copy_decoder_to_encoder(model)
    params = params_like(model, architecture, lambda x: x.detach())
    params = share(params) if shared else params
    rows = examples(architecture, PACKED_ROWS)
    packed = batch_of(architecture, rows, packed=True)
    (loss, logits), gradients = tiny_t5.with_gradients(cfg)(params, packed)
    total = torch.zeros((), dtype=torch.float64)
    for row, of_row in enumerate(rows):
        start = 0
        for inputs, targets in of_row:
            want = their_logits(model, architecture, inputs, targets)
            got = logits[row, start : start + len(want)]
            assert_close(got, want.detach().numpy(), PARITY)
            start += len(want)
            places = np.arange(len(want) - len(targets), len(want))
            if CONVERTER[architecture] == "encoder":
                places = np.flatnonzero(inputs == MASK_ID)
                targets = targets[places]
            log_p = torch.log_softmax(want[places], -1)
            total -= log_p[torch.arange(len(places)), torch.from_numpy(np.int64(targets))].sum()
    total.backward()
    assert float(loss) == pytest.approx(total.item(), rel=1e-5)
    want = params_like(model, architecture, lambda x: x.grad)
    assert_close(gradients, share_gradients(want) if shared else want, PARITY)

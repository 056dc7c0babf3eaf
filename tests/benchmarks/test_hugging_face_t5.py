"""The Hugging Face side of the benchmarks is T5 1.1, whose loss starts at ln V + 1/2."""

import math

import numpy as np
import pytest

from tests.model import tiny_t5

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch", reason="needs the `parity` extra")
pytest.importorskip("transformers", reason="needs the `parity` extra")


def test_its_tables_are_two_and_its_logits_of_variance_one():
    from benchmarks.hugging_face_t5 import make_hugging_face_t5

    cfg = tiny_t5.config(vocab_size=1031, emb_dim=36)
    model = make_hugging_face_t5(cfg).eval()
    assert model.lm_head.weight.data_ptr() != model.shared.weight.data_ptr()
    rng = np.random.default_rng(0)
    tokens = lambda *shape: torch.tensor(rng.integers(3, cfg.vocab_size, shape))
    with torch.no_grad():
        output = model(input_ids=tokens(5, 17), labels=tokens(5, 13))
    assert output.logits.var().item() == pytest.approx(1.0, rel=0.15)
    assert output.loss.item() == pytest.approx(math.log(cfg.vocab_size) + 0.5, abs=0.2)


def test_denormal_numbers_are_zero_in_every_thread():
    from benchmarks.hugging_face_t5 import flush_denormals, flushes_denormals

    try:
        flush_denormals()
        assert flushes_denormals()
    finally:
        torch.set_flush_denormal(False)
    one = torch.tensor([1e-37])
    assert (one * 1e-5 != 0).all()  # what the check would have found

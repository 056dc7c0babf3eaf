"""The Hugging Face side of the benchmarks is T5 1.1, whose loss starts at ln V + 1/2."""

import math
import pathlib
import subprocess
import sys

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


ROOT = pathlib.Path(__file__).parents[2]
# In a process of its own: threads take the setting over when they start.
DENORMALS = """
import torch, transformers
from benchmarks.hugging_face_t5 import flush_denormals, flushes_denormals
one = torch.tensor([1e-37])
assert (one * 1e-5 != 0).all()
flush_denormals()
assert torch.get_num_threads() > 1 and flushes_denormals()
"""
TOO_LATE = """
import torch
from benchmarks.hugging_face_t5 import flush_denormals
torch.set_num_threads(3)
(torch.ones(2**22) * 2).sum()  # starts the threads
try:
    flush_denormals()
except RuntimeError as error:
    print(error)
"""


def run(code: str) -> str:
    command = [sys.executable, "-c", "import torch; torch.set_num_threads(3)" + code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_denormal_numbers_are_zero_in_every_thread_or_the_benchmark_refuses():
    assert run(DENORMALS) == ""
    assert "does not flush denormal numbers" in run(TOO_LATE)

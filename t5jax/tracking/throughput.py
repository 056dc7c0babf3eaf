"""Throughput: FLOPs of the model, peak of the device, tokens per second and MFU.

MFU (model FLOPs utilisation, Chowdhery et al. 2022, appendix B) is the rate of FLOPs that the model
needs, recomputation not counted, over the device's peak rate of dense matrix products.
"""

import collections
import re
import time
from collections.abc import Callable
from typing import Protocol

from t5jax.tracking.keys import THROUGHPUT


class ModelShape(Protocol):
    """The sizes that `model_flops` reads; `T5Config` has them."""

    vocab_size: int
    emb_dim: int
    num_heads: int
    head_dim: int
    mlp_dim: int
    num_encoder_layers: int
    num_decoder_layers: int
    mlp_activations: tuple[str, ...]

    @property
    def architecture(self) -> str: ...


def model_flops(cfg: ModelShape, rows: int, encoder_length: int, decoder_length: int) -> float:
    """FLOPs of one training step: three times those of the forward pass.

    A product of [m, k] and [k, n] is 2mkn FLOPs; norms, softmax, look-ups and the optimizer count
    as nothing; padding counts, and so does the half of causal attention that is masked away.
    Per row, with S positions in the encoder, T in the decoder (0 where there is none), D = emb_dim,
    J = num_heads * head_dim, F = mlp_dim, V = vocab_size and g = 3 matrices in a gated MLP or 2 in
    a plain one:

        encoder layer     2S (4DJ + gDF)  +  4 S S J
        decoder layer     2T (4DJ + gDF)  +  4 T T J
        cross-attention   2T (2DJ)  +  2S (2DJ)  +  4 T S J    (in decoder layers of two stacks)
        logits            2T D V    (tied or not; 2S D V of an encoder alone)

    Backward each product gives two of the same size, one for either factor: hence three times.
    """
    S, T, D, F = encoder_length, decoder_length, cfg.emb_dim, cfg.mlp_dim
    J = cfg.num_heads * cfg.head_dim
    mlp = (len(cfg.mlp_activations) + 1) * D * F
    encoder_layer = 2 * S * (4 * D * J + mlp) + 4 * S * S * J
    decoder_layer = 2 * T * (4 * D * J + mlp) + 4 * T * T * J
    if cfg.architecture in ("encoder_decoder", "shared_encoder_decoder"):
        # Queries and output from the targets, keys and values from the inputs.
        decoder_layer += 2 * T * (2 * D * J) + 2 * S * (2 * D * J) + 4 * T * S * J
    predicting = S if cfg.architecture == "encoder_only" else T
    forward = (
        cfg.num_encoder_layers * encoder_layer
        + cfg.num_decoder_layers * decoder_layer
        + 2 * predicting * D * cfg.vocab_size
    )
    return 3.0 * rows * forward


# Dense bfloat16 peak of one JAX device in TFLOP/s, by what `jax.Device.device_kind` says. Vendors'
# data sheets print GPU rates with sparsity, which are twice these.
# TPU: cloud.google.com/tpu/docs (v2, v3, v4, v5e, v5p, v6e, tpu7x), per chip; JAX sees a chip of
# v2, v3 and TPU7x as two devices. GPU: NVIDIA data sheets of A10, A30, A100, L4, L40S, H100 (SXM,
# PCIe, NVL), H200 (SXM, NVL), DGX B200, GB200 NVL72; AMD's of MI250X (two devices) and MI300X.
_TPU_BF16_TFLOPS = {
    "TPU v2": 22.5,
    "TPU v3": 61.5,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5e": 197.0,
    "TPU v5": 459.0,
    "TPU v5p": 459.0,
    "TPU v6 lite": 918.0,
    "TPU v6e": 918.0,
    "TPU7x": 1153.5,
}
_GPU_BF16_TFLOPS = (  # first match; the narrower pattern stands before the wider one
    (r"\bA10\b", 125.0),
    (r"\bA30\b", 165.0),
    (r"\bA100\b", 312.0),
    (r"\bL4\b", 121.0),
    (r"\bL40S\b", 362.0),
    (r"\bH100 PCIe\b", 756.0),
    (r"\bH100 NVL\b", 835.0),
    (r"\bH100\b", 989.4),
    (r"\bH200 NVL\b", 835.0),
    (r"\bG?H200\b", 989.4),
    (r"\bGB200\b", 2500.0),
    (r"\bB200\b", 2250.0),
    (r"\bMI250X\b", 191.5),
    (r"\bMI300X\b", 1307.4),
)


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Peak FLOP/s of dense matrix products on one device, or None for a device not in the table.

    float32 means float32 arrays at JAX's default precision: bfloat16 passes on a TPU, TF32 (half
    the bfloat16 rate) on a GPU.
    """
    assert dtype in ("bfloat16", "float32"), dtype
    if device_kind in _TPU_BF16_TFLOPS:
        return _TPU_BF16_TFLOPS[device_kind] * 1e12
    for pattern, tflops in _GPU_BF16_TFLOPS:
        if re.search(pattern, device_kind):
            return tflops * 1e12 * (1.0 if dtype == "bfloat16" else 0.5)
    return None


def measure_matmul_peak(dtype: str, seconds: float = 2.0) -> float:
    """FLOP/s of the fastest square matrix product seen on this process's first device.

    Tries growing sizes for about `seconds`, compilation not counted. For devices that are not in
    the table, such as a CPU; virtual CPU devices share its cores, so divide by their number there.
    """
    import jax
    import jax.numpy as jnp

    product = jax.jit(lambda a, b: a @ b)
    device = jax.local_devices()[0]
    best, spent, size = 0.0, 0.0, 256
    while spent < seconds:
        a = jax.device_put(jnp.full((size, size), 0.5, dtype), device)
        product(a, a).block_until_ready()
        start = time.perf_counter()
        repeats = 0
        while (took := time.perf_counter() - start) < 0.05 * seconds or repeats < 2:
            product(a, a).block_until_ready()
            repeats += 1
        best = max(best, 2 * size**3 * repeats / took)
        spent += took
        if 8 * took / repeats < 0.1 * seconds:  # two products of twice the size stay affordable
            size = min(2 * size, 8192)
    return best


class Throughput:
    """Tokens and sequences per second per device and MFU, smoothed over a window of steps.

    `flops_per_row` is `model_flops(cfg, 1, ...)`, `peak` the FLOP/s of one device (None: MFU is
    None). What lies before the first `update` (compiling) and every interval with a pause in it
    (evaluation, a save that blocks) is left out: with dispatch ahead of time a step may finish
    during the pause, so subtracting the pause would make the next step look too fast.
    """

    def __init__(
        self,
        *,
        num_devices: int,
        flops_per_row: float,
        peak: float | None,
        window: int = 20,
        clock: Callable[[], float] = time.perf_counter,
    ):
        assert num_devices > 0, num_devices
        assert window > 0, window
        self._num_devices, self._flops_per_row, self._peak = num_devices, flops_per_row, peak
        self._clock = clock
        self._last: float | None = None  # when the last interval ended; None: the next one is void
        self._intervals = collections.deque(maxlen=window)  # of (seconds, tokens, rows)

    def pause(self) -> None:
        """Call before or after whatever is not training: the interval with it does not count."""
        self._last = None

    def update(self, *, tokens: float, rows: float) -> dict[str, float | None]:
        """Call when step(s) of `rows` rows (global) with `tokens` tokens (global) have finished.

        Returns the rates over the window: tokens and sequences per second per device, seconds per
        update, and MFU as a fraction; None where nothing can be said yet.
        """
        now = self._clock()
        if self._last is not None and now > self._last:
            self._intervals.append((now - self._last, tokens, rows))
        self._last = now
        if not self._intervals:
            return dict.fromkeys(THROUGHPUT)
        seconds, all_tokens, all_rows = (sum(x) for x in zip(*self._intervals, strict=True))
        tokens_rate = all_tokens / seconds / self._num_devices
        rows_rate = all_rows / seconds / self._num_devices
        mfu = None if self._peak is None else rows_rate * self._flops_per_row / self._peak
        rates = (tokens_rate, rows_rate, seconds / len(self._intervals), mfu)
        return dict(zip(THROUGHPUT, rates, strict=True))

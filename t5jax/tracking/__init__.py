"""What a run tells the world: metrics.jsonl, TensorBoard, a progress bar, the loss curve, MFU,
goodput.

Imports nothing of the model, the data or the training, and loads TensorBoard, tqdm, matplotlib,
wandb and JAX only where they are used.
"""

from t5jax.tracking.goodput import Goodput
from t5jax.tracking.jsonl import current_records, read_metrics
from t5jax.tracking.throughput import Throughput, measure_matmul_peak, model_flops, peak_flops
from t5jax.tracking.tracker import Tracker, TrackingConfig

__all__ = [
    "Goodput",
    "Throughput",
    "Tracker",
    "TrackingConfig",
    "current_records",
    "measure_matmul_peak",
    "model_flops",
    "peak_flops",
    "read_metrics",
]

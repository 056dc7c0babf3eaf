"""Types and token ids shared by all rooms; no array library is imported here."""

from typing import Any

PAD_ID, EOS_ID = 0, 1  # of every T5 vocabulary; the decoder starts from PAD_ID

# seqio's features by name, `encoder_input_tokens` …: int32 [rows, length], of NumPy or of JAX.
Batch = dict[str, Any]
# Nested dict of arrays, keyed like the attributes of the model's modules.
Params = dict[str, Any]

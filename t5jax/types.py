"""Types and token ids shared by all rooms; no array library is imported here."""

from typing import Any

# T5's, the defaults of a vocabulary and of a model; what is not T5's own says its own ids.
PAD_ID, EOS_ID = 0, 1  # a decoder of T5 starts from PAD_ID

# seqio's features by name, `encoder_input_tokens` …: int32 [rows, length], of NumPy or of JAX.
Batch = dict[str, Any]
# Nested dict of arrays, keyed like the attributes of the model's modules.
Params = dict[str, Any]

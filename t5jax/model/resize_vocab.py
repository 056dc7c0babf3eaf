"""Vocabulary resizing: token embedding and logits table with moved, new and spare rows.

Shape suffixes: V rows of the old table, W rows of the new one, D emb_dim.
"""

from collections.abc import Sequence

import jax
import numpy as np

from t5jax.errors import ConfigError
from t5jax.types import Params


def resize_token_embeddings(
    params: Params, sources: Sequence[Sequence[int]], num_rows: int
) -> Params:
    """Parameters whose token table (and untied logits table) fits another vocabulary.

    Row i of the new table is the mean of the old rows `sources[i]`: that of the id itself where it
    existed before (its row is moved, bit for bit), those of its spelling for a new piece. The
    tables get `num_rows` rows; the spare ones beyond `sources` take over the old table's spare
    rows, in turn, because training has made those improbable (the mean of all rows where there
    were none). All other parameters are the old ones.

    Args:
      params: nested dict as `init_params` makes it; float32 tables [V, D] and [D, V].
      sources: per id of the new vocabulary at least one old id.
      num_rows: W, at least len(sources).

    Returns:
      A dict of the same structure; the new tables are NumPy arrays.

    Raises:
      ConfigError: num_rows are too few, or a source lies outside the old table.
    """
    old_rows = params["token_embedder"].shape[0]
    if num_rows < len(sources):
        raise ConfigError(
            f"model.vocab_size = {num_rows}: the new vocabulary has {len(sources)} ids; the table "
            "needs at least as many rows"
        )
    highest = max(max(source) for source in sources)
    if highest >= old_rows:
        raise ConfigError(
            f"the old model's table has {old_rows} rows, but its vocabulary has an id {highest}: "
            "model and vocabulary do not belong together"
        )
    resize = lambda table_VD: _resize(np.asarray(jax.device_get(table_VD)), sources, num_rows)
    new = {**params, "token_embedder": resize(params["token_embedder"])}
    if "logits_dense" in params:
        new["logits_dense"] = np.ascontiguousarray(resize(params["logits_dense"].T).T)
    return new


def _resize(table_VD: np.ndarray, sources: Sequence[Sequence[int]], num_rows: int) -> np.ndarray:
    table_WD = np.empty((num_rows, table_VD.shape[1]), table_VD.dtype)
    table_WD[: len(sources)] = table_VD[[source[0] for source in sources]]
    for row, source in enumerate(sources):
        if len(source) > 1:
            table_WD[row] = table_VD[list(source)].mean(axis=0, dtype=np.float64)
    first_spare = 1 + max(max(source) for source in sources)
    spare_SD = table_VD[first_spare:]
    if not len(spare_SD):
        spare_SD = table_VD.mean(axis=0, dtype=np.float64, keepdims=True)
    missing = num_rows - len(sources)
    table_WD[len(sources) :] = spare_SD[np.arange(missing) % len(spare_SD)]
    return table_WD

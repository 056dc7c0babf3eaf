"""Grown tables: old texts give the same numbers, new rows are the means they should be."""

import jax
import numpy as np
import pytest
from flax import nnx
from tiny_t5 import assert_close, config, random_batch, random_params

from t5jax.errors import ConfigError
from t5jax.model.registry import abstract_model
from t5jax.model.resize_vocab import resize_token_embeddings

OLD_IDS, SENTINELS, NEW_PIECES = 47, 11, 5  # of 53 rows; the sentinels are the top ids


def sources() -> list[tuple[int, ...]]:
    """Five new pieces between the old ones and the sentinels."""
    pieces = OLD_IDS - SENTINELS
    new = [(7,), (4, 9), (9, 4, 4), (30, 31, 32, 33), tuple(range(3, pieces))]
    assert len(new) == NEW_PIECES
    return [(i,) for i in range(pieces)] + new + [(i,) for i in range(pieces, OLD_IDS)]


def logits(cfg, params, batch) -> np.ndarray:
    definition = nnx.graphdef(abstract_model(cfg))
    return np.asarray(
        jax.jit(lambda params, batch: nnx.merge(definition, params)(batch))(params, batch)
    )


@pytest.mark.parametrize("variant", [pytest.param("1.0", marks=pytest.mark.slow), "1.1"])
def test_old_texts_give_the_same_logits(variant):
    cfg = config(variant)
    params = random_params(cfg)
    grown = resize_token_embeddings(params, sources(), 71)
    batch = random_batch(cfg, 5, 14, 9)
    batch = {name: np.where(ids < OLD_IDS, ids, 3) for name, ids in batch.items()}
    new_of = np.array([sources().index((i,)) for i in range(OLD_IDS)])
    tokens = {name: new_of[ids].astype(np.int32) for name, ids in batch.items() if "token" in name}
    old = logits(cfg, params, batch)
    new = logits(config(variant, vocab_size=71), grown, {**batch, **tokens})
    assert new.shape == (5, 9, 71)
    assert any((tokens[name] != batch[name]).any() for name in tokens), "sentinels have moved"
    # Products of other shapes: a CPU with wider vectors adds in another order.
    assert_close(new[..., new_of], old[..., :OLD_IDS], 1e-5)


@pytest.mark.parametrize("variant", ["1.0", "umT5"])
def test_rows(variant):
    cfg = config(variant)
    params = jax.tree.map(jax.numpy.asarray, random_params(cfg))
    grown = resize_token_embeddings(params, sources(), 64)
    tables = [(params["token_embedder"], grown["token_embedder"])]
    if variant == "umT5":
        tables += [(params["logits_dense"].T, grown["logits_dense"].T)]
    for old, new in tables:
        old = np.asarray(old)
        assert new.shape == (64, 18)
        assert new.dtype == np.float32
        first = OLD_IDS - SENTINELS
        np.testing.assert_array_equal(new[first], old[7])
        np.testing.assert_allclose(new[first + 1], (old[4] + old[9]) / 2, rtol=1e-6)
        np.testing.assert_allclose(new[first + 2], (2 * old[4] + old[9]) / 3, rtol=1e-6)
        np.testing.assert_allclose(new[first + 4], old[3:first].mean(0), rtol=1e-5, atol=1e-7)
        # 12 spare rows of the 6 that there were
        np.testing.assert_array_equal(new[OLD_IDS + NEW_PIECES :], np.tile(old[OLD_IDS:], (2, 1)))
    untouched = {name for name in params if name not in ("token_embedder", "logits_dense")}
    assert all(grown[name] is params[name] for name in untouched)
    assert grown.keys() == params.keys()


def test_spare_rows_of_a_table_without_any():
    params = {"token_embedder": np.arange(12, dtype=np.float32).reshape(4, 3)}
    grown = resize_token_embeddings(params, [(0,), (1,), (2,), (0, 3), (3,)], 7)["token_embedder"]
    assert grown[3].tolist() == [4.5, 5.5, 6.5]
    assert grown[5:].tolist() == [[4.5, 5.5, 6.5]] * 2


def test_refused():
    params = {"token_embedder": np.zeros((4, 3), np.float32)}
    with pytest.raises(ConfigError, match=r"model\.vocab_size = 2: the new vocabulary has 3 ids"):
        resize_token_embeddings(params, [(0,), (1,), (2,)], 2)
    with pytest.raises(ConfigError, match="has 4 rows, but its vocabulary has an id 4"):
        resize_token_embeddings(params, [(0,), (1, 4)], 5)

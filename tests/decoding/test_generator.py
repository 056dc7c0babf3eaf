"""Generator: independence of order, batch, mesh and padding; what is refused."""

import functools

import jax
import numpy as np
import pytest

from t5jax.decoding import DecodingConfig, Generator
from t5jax.decoding.decode_state import Request
from t5jax.decoding.generator import decode_batch
from t5jax.errors import ConfigError, DataError
from t5jax.model import matmul
from t5jax.model.encoder_decoder import EncoderDecoder
from t5jax.sharding import MeshConfig
from t5jax.training.losses import CrossEntropy
from t5jax.training.optimizers import Adafactor
from t5jax.training.steps import Program
from t5jax.types import EOS_ID
from tests.model import tiny_t5

# What eight devices share has to divide among them.
CFG = tiny_t5.config("1.1", vocab_size=56, emb_dim=24, num_heads=4, mlp_dim=28)
NUM_IDS = 53
CONFIGS = {
    "greedy": DecodingConfig(max_length=11),
    "beams": DecodingConfig(max_length=7, num_beams=3, num_outputs=2),
    "samples": DecodingConfig(max_length=7, temperature=0.8, top_k=9, top_p=0.9, num_outputs=3),
}


@functools.cache
def weights(seed: int = 4) -> dict:
    found = tiny_t5.random_params(CFG, seed=seed)
    found["logits_dense"][:, EOS_ID] *= 2.5
    return found


def generator(mesh=(8, 1, 1), batch_size=8, params=None) -> Generator:
    config = MeshConfig(data=mesh[0], fsdp=mesh[1], tensor=mesh[2])
    program = Program(
        model=CFG,
        loss=CrossEntropy(first_sentinel_id=50),
        tx=Adafactor().build(1),
        mesh_config=config,
        mesh=config.build(),
    )
    shardings = program.shardings.params
    laid_out = [jax.device_put(one, shardings) for one in params or [weights()]]
    return Generator(program, laid_out, num_ids=NUM_IDS, batch_size=batch_size)


def inputs(num=21, longest=23):
    """Of many lengths, each ending with EOS."""
    rng = np.random.default_rng(5)
    lengths = rng.integers(1, longest, num)
    return [np.append(rng.integers(3, NUM_IDS, n), EOS_ID).astype(np.int32) for n in lengths]


def plain(results):
    return [[(one.ids.tolist(), one.ended) for one in outputs] for outputs in results]


def scores(results):
    return [one.score for outputs in results for one in outputs]


@pytest.fixture(scope="module")
def expected():
    """Outputs of every config, made when they are asked for."""
    return Expected()


class Expected(dict):
    def __missing__(self, name):
        self[name] = generator().generate(inputs(), CONFIGS[name])
        return self[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    ("mesh", "batch_size"),
    [((2, 2, 2), 16), pytest.param((1, 2, 4), 5, marks=[pytest.mark.slow, pytest.mark.long])],
)
def test_batch_and_mesh_do_not_matter(expected, name, mesh, batch_size):
    got = generator(mesh, batch_size).generate(inputs(), CONFIGS[name])
    assert plain(got) == plain(expected[name])
    np.testing.assert_allclose(scores(got), scores(expected[name]), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_an_input_alone_gives_what_it_gives_among_others(expected, name):
    for number in (0, 13):
        got = generator().generate([inputs()[number]], CONFIGS[name], row_numbers=[number])
        assert plain(got) == [plain(expected[name])[number]]


@pytest.mark.slow
def test_outputs_are_as_the_config_says(expected):
    for name, config in CONFIGS.items():
        ended = [one.ended for outputs in expected[name] for one in outputs]
        assert 0 < sum(ended) < len(ended)
        for outputs in expected[name]:
            assert len(outputs) == config.num_outputs
            assert all(len(one.ids) <= config.max_length for one in outputs)
            assert all(EOS_ID not in one.ids for one in outputs)
    assert len({str(outputs) for outputs in plain(expected["samples"])}) > 15
    beams = [[one.score for one in outputs] for outputs in expected["beams"]]
    assert all(best >= second for best, second in beams)


@pytest.mark.slow
def test_transposed_weights_of_a_small_batch_give_the_same(expected):
    one = generator(batch_size=24)  # 3 rows a device, which are few; the fixture's 1 is not
    got = one.generate(inputs(), CONFIGS["greedy"])
    assert plain(got) == plain(expected["greedy"])
    np.testing.assert_allclose(scores(got), scores(expected["greedy"]), atol=1e-5)
    placement = one._placement
    (weights,) = placement.decode_weights(24)
    assert isinstance(weights.table, matmul.TransposedParam)
    assert weights is placement.decode_weights(72)[0]  # made once
    assert generator()._placement.decode_weights(8) is None


@pytest.mark.parametrize(
    ("mesh", "alone"), [((8, 1, 1), True), pytest.param((4, 2, 1), False, marks=pytest.mark.slow)]
)
def test_devices_with_all_parameters_decode_independently(mesh, alone):
    placement = generator(mesh)._placement
    assert placement.for_rows(16) is placement
    request = Request(
        placement.put(np.stack([inputs()[0][:5]] * 8)),
        placement.put(np.zeros((8, 0), np.int32)),
        placement.put(np.arange(8, dtype=np.int32)),
    )
    config = DecodingConfig(max_length=3)
    with placement.program.use_mesh():
        compiled = decode_batch.lower(
            placement.model_defs,
            placement.params,
            request,
            config,
            NUM_IDS,
            rows_per_device=placement.rows_per_device,
        ).compile()
    collectives = ("all-reduce", "all-gather", "all-to-all", "collective-permute")
    assert any(name in compiled.as_text() for name in collectives) != alone


@pytest.mark.slow
def test_few_rows_are_decoded_by_one_device_with_the_same_results():
    given, config = inputs(3), CONFIGS["greedy"]
    one = generator()
    few = one._placement.for_rows(15)
    assert few.program.mesh.devices.tolist() == [[[jax.devices()[0]]]]
    assert few is one._placement.for_rows(3)  # made once, of the same memory
    first = lambda placement: jax.tree.leaves(placement.params)[0].addressable_data(0)
    pointers = [first(x).unsafe_buffer_pointer() for x in (few, one._placement)]
    assert pointers[0] == pointers[1]
    alone = one.generate(given, config)
    shared = generator(batch_size=16).generate([*given, *inputs(13)], config)[:3]
    assert plain(alone) == plain(shared)
    np.testing.assert_allclose(scores(alone), scores(shared), atol=1e-4)
    sharded = generator((4, 2, 1))._placement
    assert sharded.for_rows(3) is sharded


@pytest.mark.slow
def test_few_shapes_are_compiled(monkeypatch):
    """As many as there are buckets of lengths, not as there are batches."""
    traced = []
    start = EncoderDecoder.start_decoding

    def counted(self, layout, tokens_BS, *arguments):
        traced.append(tokens_BS.shape)
        return start(self, layout, tokens_BS, *arguments)

    monkeypatch.setattr(EncoderDecoder, "start_decoding", counted)
    one = generator()
    for _ in range(2):
        one.generate(inputs(40), DecodingConfig(max_length=5))
    assert sorted(set(traced)) == sorted(traced)
    assert {shape[1] for shape in traced} <= {16, 24, 32, 48}


@pytest.mark.slow
def test_scores_are_those_of_teacher_forcing():
    given, targets = inputs(), inputs(21, 9)[::-1]
    scored = generator(batch_size=8).score(given, targets)
    for ids, target, got in zip(given[:5], targets[:5], scored[:5], strict=True):
        logprobs = forced(weights(), ids[None], target[None])  # spare rows count too
        wanted = logprobs[0, np.arange(len(target)), target]
        np.testing.assert_allclose(got.tokens, wanted, atol=1e-5)
        assert got.total == pytest.approx(wanted.sum(), abs=1e-4)
    elsewhere = generator((1, 2, 4), batch_size=3).score(given[::-1], targets[::-1])[::-1]
    np.testing.assert_allclose(
        [one.total for one in elsewhere], [one.total for one in scored], atol=1e-4
    )


def forced(params, tokens, targets):
    """float64 log-probabilities of the vocabulary's ids."""
    batch = {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": np.ones_like(targets),
    }
    logits = np.asarray(tiny_t5.build(CFG, params)(batch), np.float64)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.mark.slow
def test_greedy_scores_are_likelihoods(expected):
    given, found = inputs(), expected["greedy"]
    targets = [np.append(one.ids, [EOS_ID] * one.ended).astype(np.int32) for (one,) in found]
    again = generator().score(given, targets)
    np.testing.assert_allclose([one.total for one in again], scores(found), atol=1e-4)


@pytest.mark.slow
def test_an_ensemble_averages_logits():
    """The logits are averaged: of equal models nothing changes, and the order does not matter."""
    given, config = inputs(), CONFIGS["greedy"]
    one, other = weights(), weights(seed=7)
    alone = generator().generate(given, config)
    assert plain(generator(params=[one, one]).generate(given, config)) == plain(alone)
    both = generator(params=[one, other])
    assert plain(both.generate(given, config)) != plain(alone)
    turned = generator(params=[other, one])
    np.testing.assert_allclose(
        [s.total for s in turned.score(given, given)],
        [s.total for s in both.score(given, given)],
        atol=1e-4,
    )


@pytest.mark.slow
def test_prefixes_begin_the_outputs():
    given = inputs(5)
    prefixes = [np.array(ids, np.int32) for ids in ([], [9, 17], [30], [], [8, 7, 6])]
    for config in CONFIGS.values():
        for outputs, prefix in zip(
            generator().generate(given, config, prefixes=prefixes), prefixes, strict=True
        ):
            assert all(one.ids[: len(prefix)].tolist() == prefix.tolist() for one in outputs)


def only_even(scores, tokens, index):
    ids = np.arange(scores.shape[-1])
    return scores - 1e9 * ((ids % 2 == 1) | (ids == 0))


@pytest.mark.slow
def test_a_logits_processor_changes_the_outputs():
    for config in CONFIGS.values():
        for outputs in generator().generate(inputs(4), config, logits_processor=only_even):
            assert all((one.ids % 2 == 0).all() for one in outputs)
            assert not any(one.ended for one in outputs)  # EOS is odd


@pytest.mark.slow
def test_no_inputs():
    assert generator().generate([], CONFIGS["greedy"]) == []
    assert generator().score([], []) == []
    (outputs,) = generator().generate([np.zeros(0, np.int32)], CONFIGS["greedy"])
    assert outputs[0].ids.tolist() == []


def test_what_is_refused():
    one = generator()
    with pytest.raises(DataError, match="input 1 has the id 53"):
        one.generate([np.array([4, 1]), np.array([53, 1])], CONFIGS["greedy"])
    with pytest.raises(DataError, match="target 0 has the id 4 or 0"):
        one.score([np.array([4, 1])], [np.array([0, 4])])
    with pytest.raises(DataError, match="a prefix has 11 tokens"):
        one.generate([np.array([4, 1])], CONFIGS["greedy"], prefixes=[np.full(11, 5)])
    with pytest.raises(ConfigError, match="batch_size = 0"):
        generator(batch_size=0)

"""T5's architectures in NumPy float64 from their definitions, for one example at a time.

No batch, no padding, no packing, no cache: positions are written out, masks are lists of who sees
whom. `params` is a tree like ours. (`convert/numpy_t5.py` is for encoder-decoders under foreign
names, in padded batches, in float32: what a conversion is checked with must run for 11B, too.)
"""

import math
from typing import Any

import numpy as np


def logits(cfg, params, inputs, targets) -> np.ndarray:
    """[T, V] at the positions that predict: of the targets, of inputs and targets one behind the
    other, or of the inputs (encoder-only)."""
    net = _Net(cfg, _float64(params))
    inputs, targets = [int(x) for x in inputs], [int(x) for x in targets]
    if cfg.architecture == "encoder_only":
        return net.predict(net.encoder(inputs))
    if cfg.architecture in ("encoder_decoder", "shared_encoder_decoder"):
        return net.predict(net.decoder([0, *targets[:-1]], memory=net.encoder(inputs)))
    read = [0, *inputs, *targets][:-1]
    shown = len(inputs) if cfg.architecture == "prefix_lm" else -1
    return net.predict(net.decoder(read, shown=shown))


def _float64(tree) -> Any:
    if isinstance(tree, dict):
        return {name: _float64(x) for name, x in tree.items()}
    return np.asarray(tree, np.float64)


class _Net:
    def __init__(self, cfg, params):
        self.cfg, self.params = cfg, params

    def encoder(self, tokens):
        everyone = [[True] * len(tokens) for _ in tokens]
        shared = self.cfg.architecture == "shared_encoder_decoder"
        stack = self.params["decoder" if shared else "encoder"]
        return self.stack(stack, tokens, everyone, both_ways=True)

    def decoder(self, tokens, *, memory=None, shown=-1):
        """`shown`: the last position that all positions see."""
        places = range(len(tokens))
        sees = [[s <= t or s <= shown for s in places] for t in places]
        prefix_lm = self.cfg.architecture == "prefix_lm"
        return self.stack(self.params["decoder"], tokens, sees, both_ways=prefix_lm, memory=memory)

    def stack(self, stack, tokens, sees, *, both_ways, memory=None):
        x = self.params["token_embedder"][tokens]
        num_layers = len(stack["layers"]["mlp"]["wo"])
        for number in range(num_layers):
            layer = _slice(stack["layers"], number)
            table = (layer if "relpos_bias" in layer else stack)["relpos_bias"]["embedding"]
            bias = self.bias(table, len(tokens), both_ways)
            y = _norm(x, layer["self_attention_norm"])
            x = x + self.attention(layer["self_attention"], y, y, bias, sees)
            if memory is not None:
                y = _norm(x, layer["cross_attention_norm"])
                all_inputs = [[True] * len(memory) for _ in tokens]
                x = x + self.attention(layer["cross_attention"], y, memory, 0.0, all_inputs)
            x = x + self.mlp(layer["mlp"], _norm(x, layer["mlp_norm"]))
        return _norm(x, stack["final_norm"])

    def bias(self, table, length, both_ways):
        """[N, T, T]: the table's entry of each distance, one pair of positions after the other."""
        found = np.zeros((len(table), length, length))
        for t in range(length):
            for s in range(length):
                found[:, t, s] = table[:, self.bucket(s - t, both_ways)]
        return found

    def bucket(self, distance, both_ways):
        buckets, first = self.cfg.relpos_num_buckets, 0
        if both_ways:
            buckets //= 2
            first = buckets if distance > 0 else 0
            distance = abs(distance)
        else:
            distance = max(-distance, 0)
        exact = buckets // 2
        if distance < exact:
            return first + distance
        wide = math.log(distance / exact) / math.log(self.cfg.relpos_max_distance / exact)
        return first + min(exact + int(wide * (buckets - exact) + 1e-9), buckets - 1)

    def attention(self, weights, x, memory, bias, sees):
        heads = lambda y: y.reshape(len(y), self.cfg.num_heads, self.cfg.head_dim)
        q, k, v = (heads(y @ weights[n]) for y, n in zip((x, memory, memory), _QKV, strict=True))
        scores = np.where(sees, np.einsum("tnh,snh->nts", q, k) + bias, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        probs = scores / scores.sum(-1, keepdims=True)
        return np.einsum("nts,snh->tnh", probs, v).reshape(len(x), -1) @ weights["out"]

    def mlp(self, weights, x):
        if "wi" in weights:
            return np.maximum(x @ weights["wi"], 0.0) @ weights["wo"]
        return _gelu(x @ weights["wi_0"]) * (x @ weights["wi_1"]) @ weights["wo"]

    def predict(self, hidden):
        if self.cfg.tied_embeddings:
            return hidden * self.cfg.emb_dim**-0.5 @ self.params["token_embedder"].T
        return hidden @ self.params["logits_dense"]


_QKV = ("query", "key", "value")


def _slice(tree, number):
    if isinstance(tree, dict):
        return {name: _slice(x, number) for name, x in tree.items()}
    return tree[number]


def _norm(x, norm):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * norm["scale"]


def _gelu(x):
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))

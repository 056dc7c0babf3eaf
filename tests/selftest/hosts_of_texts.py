"""Other hosts for a self-test in one process: what they answer is given."""

import json

from t5jax.selftest import check


def answer(monkeypatch, *others) -> None:
    """Hosts 1, 2, … of `on_every_host`: each a value, or a function of this host's answer."""

    def gather(text: str) -> list[str]:
        ours = json.loads(text)
        change = lambda other: other(ours) if callable(other) else {"found": other}
        return [text, *(json.dumps(change(other)) for other in others)]

    monkeypatch.setattr(check, "gather_texts", gather)


def same(answer):
    return answer

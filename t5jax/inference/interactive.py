"""`t5jax predict WORKDIR --interactive`: a text, its answer, the next text; settings in between."""

import ast
import dataclasses
import typing
from collections.abc import Callable

import jax

from t5jax.decoding import DecodingConfig
from t5jax.errors import ConfigError, DataError
from t5jax.inference import TextModel, TextOptions
from t5jax.inference.loaded_run import changed, load_with_flags
from t5jax.inference.records import predicted, shown

HELP = """\
A line is a text to answer. A line that begins with / is a command:
  /settings             the settings that differ from their defaults; /settings all shows every one
  /NAME VALUE           change a setting: /num_beams 4, /max_length 64, /prefix "summarize: "
  /NAME                 its value
  /scores               show log-likelihoods, or stop showing them
  /help, /quit          this; the end (or Ctrl-D)
A text that begins with / is written with two: //."""


@dataclasses.dataclass
class Session:
    """What a person has set so far."""

    model: TextModel
    decoding: DecodingConfig
    options: TextOptions
    step: int | list[int]
    scores: bool = False

    def answer(self, text: str) -> str:
        (prediction,) = self.model.predict([text], self.decoding, self.options)
        found = predicted(text, prediction, self.step, self.decoding.num_outputs)
        if not self.scores:
            return shown(found)
        scores = found.get("scores", [found["score"]])
        outputs = found.get("outputs", [found["output"]])
        return "\n".join(f"{x:10.4f}  {y}" for x, y in zip(scores, outputs, strict=True))

    def command(self, words: str) -> str:
        """Carries out what stands behind a `/`. Raises ConfigError for what does not fit."""
        name, _, value = words.strip().partition(" ")
        name, value = name.replace("-", "_"), value.strip()
        if name == "help":
            return HELP
        if name == "settings":
            return "\n".join(self._settings(everything=value == "all")) or "all as they are"
        if name == "scores":
            self.scores = not self.scores
            return f"scores are {'shown' if self.scores else 'not shown'}"
        section = self._section_of(name)
        if not value:
            return f"{name} = {getattr(getattr(self, section), name)!r}"
        new = changed(getattr(self, section), {name: self._parsed(section, name, value)})
        setattr(self, section, new)
        return f"{name} = {getattr(new, name)!r}"

    def _section_of(self, name: str) -> str:
        for section in ("options", "decoding"):  # /stop is that of texts
            if name in {field.name for field in dataclasses.fields(getattr(self, section))}:
                return section
        raise ConfigError(f"/{name}: there is no such command or setting; /help, /settings all")

    def _parsed(self, section: str, name: str, text: str):
        """A value as Python writes it; for a text the quotes can be left out."""
        hint = typing.get_type_hints(type(getattr(self, section)))[name]
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if hint is str:
            return value if isinstance(value, str) else text
        return (value,) if name == "stop" and section == "options" and value == text else value

    def _settings(self, *, everything: bool) -> list[str]:
        return [
            f"{field.name} = {getattr(section, field.name)!r}"
            for section in (self.decoding, self.options)
            for field in dataclasses.fields(section)
            if everything or getattr(section, field.name) != field.default
        ]


def run(
    workdir: str, step: int | None, ensemble: tuple[str, ...], options: TextOptions,
    flags: list[str], *, read: Callable[[str], str] = input,
) -> None:  # fmt: skip
    """Reads lines until the end; an interrupt gives a line up, not the session."""
    _edit_lines()
    loaded = load_with_flags(workdir, step, flags, ensemble, act="predict", batch_size=32)
    if jax.process_count() > 1:
        raise ConfigError("--interactive is for one process")
    session = Session(loaded.texts, loaded.config.decoding, options, loaded.step)
    print(f"{workdir}, step {loaded.step}; /help says what can be said, /quit or Ctrl-D ends")
    while True:
        try:
            line = read("> ")
            if line.strip() in ("/quit", "/exit"):
                return
            said = _said(session, line)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\n/quit or Ctrl-D ends")
            continue
        except (ConfigError, DataError) as error:
            said = f"error: {error}"
        if said:
            print(said, flush=True)


def _said(session: Session, line: str) -> str:
    if line.startswith("/") and not line.startswith("//"):
        return session.command(line[1:])
    return session.answer(line.removeprefix("/")) if line.strip() else ""


def _edit_lines() -> None:
    """Arrow keys and history, where Python was built with them."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return

"""`t5jax predict WORKDIR --interactive`: predictions at a prompt, with settings that can change."""

import ast
import dataclasses
import typing
from collections.abc import Callable

import jax

from t5jax.data.vocabularies.one_line import one_line
from t5jax.decoding import DecodingConfig
from t5jax.errors import ConfigError, DataError
from t5jax.inference import TextModel, TextOptions
from t5jax.inference.loaded_run import load_with_flags, replace_settings
from t5jax.inference.output_records import format_prediction, prediction_record

HELP = """\
A line is an input text. A line that begins with / is a command:
  /settings             the settings that differ from their defaults; /settings all shows all
  /NAME VALUE           change a setting: /num_beams 4, /max_length 64, /prefix "summarize: "
  /NAME                 its value
  /scores               show log-likelihoods, or stop showing them
  /help, /quit          this; the end (or Ctrl-D)
A line of the answer is an output: line ends within it are shown as \\n, \\r or \\u2028.
A text that begins with / is written with two: //."""


@dataclasses.dataclass
class InteractiveSession:
    """A text model with the current settings of the prompt."""

    model: TextModel
    decoding: DecodingConfig
    options: TextOptions
    step: int | list[int]
    scores: bool = False

    def predict(self, text: str) -> str:
        (prediction,) = self.model.predict([text], self.decoding, self.options)
        record = prediction_record(text, prediction, self.step, self.decoding.num_outputs)
        if not self.scores:
            return format_prediction(record)
        scores = record.get("scores", [record["score"]])
        outputs = record.get("outputs", [record["output"]])
        return "\n".join(f"{x:10.4f}  {one_line(y)}" for x, y in zip(scores, outputs, strict=True))

    def command(self, line: str) -> str:
        """Runs a command, given without its `/`. Raises ConfigError for an invalid one."""
        name, _, value = line.strip().partition(" ")
        name, value = name.replace("-", "_"), value.strip()
        if name == "help":
            return HELP
        if name == "settings":
            settings = self._settings(include_defaults=value == "all")
            return "\n".join(settings) or "all have their defaults"
        if name == "scores":
            self.scores = not self.scores
            return f"scores are {'shown' if self.scores else 'not shown'}"
        section = self._section_of(name)
        if not value:
            return f"{name} = {getattr(getattr(self, section), name)!r}"
        new = {name: self._parse_value(section, name, value)}
        setattr(self, section, replace_settings(getattr(self, section), new))
        return f"{name} = {getattr(getattr(self, section), name)!r}"

    def _section_of(self, name: str) -> str:
        for section in ("options", "decoding"):  # /stop is the option: stop texts
            if name in {field.name for field in dataclasses.fields(getattr(self, section))}:
                return section
        raise ConfigError(f"/{name}: there is no such command or setting; /help, /settings all")

    def _parse_value(self, section: str, name: str, text: str):
        """A Python literal; the quotes of a string can be left out."""
        hint = typing.get_type_hints(type(getattr(self, section)))[name]
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if hint is str:
            return value if isinstance(value, str) else text
        return (value,) if name == "stop" and section == "options" and value == text else value

    def _settings(self, *, include_defaults: bool) -> list[str]:
        return [
            f"{field.name} = {getattr(section, field.name)!r}"
            for section in (self.decoding, self.options)
            for field in dataclasses.fields(section)
            if include_defaults or getattr(section, field.name) != field.default
        ]


def run_interactive(
    workdir: str, step: int | None, ensemble: tuple[str, ...], options: TextOptions,
    flags: list[str], *, read: Callable[[str], str] = input,
) -> None:  # fmt: skip
    """Reads lines until end of file; an interrupt discards the line, not the session."""
    _enable_line_editing()
    loaded = load_with_flags(workdir, step, flags, ensemble, command="predict", batch_size=32)
    if jax.process_count() > 1:
        raise ConfigError("--interactive is for one process")
    session = InteractiveSession(loaded.texts, loaded.config.decoding, options, loaded.step)
    print(f"{workdir}, step {loaded.step}; /help lists the commands, /quit or Ctrl-D ends")
    while True:
        try:
            line = read("> ")
            if line.strip() in ("/quit", "/exit"):
                return
            reply = _reply(session, line)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print("\n/quit or Ctrl-D ends")
            continue
        except (ConfigError, DataError) as error:
            reply = f"error: {error}"
        if reply:
            print(reply, flush=True)


def _reply(session: InteractiveSession, line: str) -> str:
    if line.startswith("/") and not line.startswith("//"):
        return session.command(line[1:])
    return session.predict(line.removeprefix("/")) if line.strip() else ""


def _enable_line_editing() -> None:
    """Arrow keys and history, where Python was built with them."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return

"""Where do the settings come from, and which are in force?

Three layers, each over the one before: a TOML file (`--config`, else `IACE_CONFIG`, else `iace.toml` in the working
directory, else none), environment variables `IACE_SECTION__KEY`, and the flags of the command line. The whole is
validated at once, and every problem is told with its path and the layer that it came from.

No setting holds a secret: the only one that leads to a secret is the name of a file. So the effective configuration
and every message about it can be printed and logged.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from controller.config_rules import problems as rule_problems
from controller.settings import Config, KpiSettings
from metrics.errors import ConfigInvalidError

DEFAULT_FILE = Path("iace.toml")
ENV_PREFIX = "IACE_"
ENV_FILE = "IACE_CONFIG"
ENV_IGNORED_PREFIX = "IACE_TEST_"
ENV_OF_CLIENTS = frozenset({"IACE_API", "IACE_TOKEN"})  # for the commands that ask a running daemon: no settings
FROM_COMMAND_LINE = "from the command line"
FILE_BYTES_MAX = 1_000_000  # no configuration of ours is that long, and a mistaken path should not fill the memory

# What is known to change no decision: two runs that differ only here must decide alike.
_WITHOUT_INFLUENCE = frozenset(
    {"log", "store", "journal", "influxdb", "prometheus", "api", "plant.url", "plant.recording", "plant.token_file"}
)
_SHOWN_CHARACTERS = 60
# A token that was put there by mistake must not be printed.
_NEVER_SHOWN = frozenset({"plant.url", "plant.token_file", "influxdb.url", "influxdb.token_file"})

Nested = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Layer:
    """Values from one place; `origin` is filled with the path for a message."""

    values: Nested
    origin: str

    def names(self, path: str) -> str | None:
        """Where `path` was given, if it was given here."""
        node: object = self.values
        for part in path.split("."):
            if not isinstance(node, dict) or part not in node:
                return None
            node = node[part]
        return self.origin.format(variable=_variable(path))


def load(
    path: Path | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    overridden: str = FROM_COMMAND_LINE,
) -> Config:
    """The configuration in force.

    Args:
        path: the file that was asked for, or None to look where the module's docstring says.
        overrides: section to key to value, from the command line; None as a value means that the flag was not given.
        environ: environment variables; an empty one counts as not set.
        overridden: where the overrides come from, for messages.

    Raises:
        ConfigInvalidError: the file cannot be read, a key is unknown, a value is out of range or contradicts another;
            `problems` lists all of it.
    """
    return Source(path, overrides or {}, environ, overridden).load()


@dataclass(slots=True)
class Source:
    """Where a configuration comes from that is read again and again; `load` is the first time.

    A file that was there once is needed from then on: without it the defaults would silently come into force, and
    loosen the guards that it had set.

    Attributes:
        path, overrides, environ, overridden: as for `load`.
    """

    path: Path | None
    overrides: Mapping[str, Mapping[str, object]]
    environ: Mapping[str, str]
    overridden: str = FROM_COMMAND_LINE
    _found: bool = False

    @property
    def file(self) -> Path:
        """What is read, where it is there."""
        return chosen(self.path, self.environ) or DEFAULT_FILE

    def load(self) -> Config:
        """The configuration as of now.

        Raises:
            ConfigInvalidError: as for `load`; or a file that was there is gone.
        """
        values = _read(self.file)
        if values is None and self._found:
            raise ConfigInvalidError(str(self.file), ["the file is gone; an empty one would mean the defaults"])
        if values is None and chosen(self.path, self.environ) is not None:
            raise ConfigInvalidError(str(self.file), ["no such file; leave it out to run with the defaults"])
        self._found = values is not None
        source = "configuration" if values is None else str(self.file)
        variables, unknown = _environment(self.environ)
        flags = {
            section: {key: value for key, value in given.items() if value is not None}
            for section, given in self.overrides.items()
        }
        file = _Layer(values or {}, f"in {source}")
        config, problems = _validate((file, _Layer(variables, "from {variable}"), _Layer(flags, self.overridden)))
        if unknown or problems:
            raise ConfigInvalidError(source, [*problems, *unknown])
        return config


def chosen(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file that was asked for, by `path` or else by `IACE_CONFIG`; None where none was."""
    return path or (Path(environ[ENV_FILE]) if environ.get(ENV_FILE) else None)


def token(config: Config) -> str | None:
    """The bearer token from `plant.token_file`, or None where none is configured.

    Raises:
        ConfigInvalidError: the file cannot be read or holds no token.
    """
    return secret("plant.token_file", config.plant.token_file)


def influxdb_token(config: Config) -> str | None:
    """The token from `influxdb.token_file`, or None where none is configured.

    Raises:
        ConfigInvalidError: the file cannot be read or holds no token.
    """
    return secret("influxdb.token_file", config.influxdb.token_file)


def values(config: Config) -> dict[str, dict[str, object]]:
    """The effective values by section and key, with what was left to a rule decided; None where nothing is set."""
    tables: dict[str, dict[str, object]] = config.model_dump(mode="json")
    tables["plant"]["allow_probes"] = config.plant.probes_allowed
    tables["plant"]["allow_fault_injection"] = config.plant.fault_injection_allowed
    tables["healing"]["auto_apply"] = config.auto_apply
    return tables


def effective(config: Config) -> str:
    """The effective values as TOML that `load` accepts; what is not set stands there as a comment."""
    tables = values(config)
    limits = tables.pop("kpi")
    sections = {**tables, **{f"kpi.{name}": table for name, table in limits.items()}}
    return "\n".join(_table(name, table) for name, table in sections.items() if isinstance(table, dict))


def fingerprint(config: Config) -> str:
    """SHA-256 (hex) over the effective values that influence decisions."""
    tables = {
        section: {key: value for key, value in table.items() if f"{section}.{key}" not in _WITHOUT_INFLUENCE}
        for section, table in values(config).items()
        if section not in _WITHOUT_INFLUENCE
    }
    return hashlib.sha256(json.dumps(tables, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def secret(setting: str, path: Path | None) -> str | None:
    """The token in the file that a setting names, or None where it names none.

    Raises:
        ConfigInvalidError: the file cannot be read or holds no token.
    """
    if path is None:
        return None
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalidError(str(path), [f"{setting}: cannot be read: {_reason(error)}"]) from error
    if not secret or not secret.isprintable() or " " in secret:
        raise ConfigInvalidError(str(path), [f"{setting}: must hold one token and nothing else"])
    return secret


def _read(path: Path) -> Nested | None:
    """What the file says, None where there is none: what cannot be looked at may be there."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            raise ConfigInvalidError(str(path), [f"longer than {FILE_BYTES_MAX} bytes: this is no configuration"])
        return tomllib.loads(raw.decode())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalidError(str(path), [f"cannot be read: {_reason(error)}"]) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigInvalidError(str(path), [f"is not TOML: {_reason(error)}"]) from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _environment(environ: Mapping[str, str]) -> tuple[Nested, list[str]]:
    """The values of all IACE_ variables, nested, and a problem for each that names no setting."""
    nested: Nested = {}
    unknown = []
    for name in sorted(environ):
        if not name.startswith(ENV_PREFIX) or name.startswith(ENV_IGNORED_PREFIX):
            continue
        if name == ENV_FILE or name in ENV_OF_CLIENTS:
            continue
        parts = name.removeprefix(ENV_PREFIX).lower().split("__")
        annotation = _annotation(parts)
        if annotation is None:
            known = [_variable(path) for path in _paths()]
            unknown.append(f"{name}: no such setting{_suggestion(name, known)}")
        elif environ[name]:
            table = nested
            for part in parts[:-1]:
                table = table.setdefault(part, {})
            table[parts[-1]] = _typed(environ[name], annotation)
    return nested, unknown


def _annotation(parts: Sequence[str]) -> Any:  # noqa: ANN401 - a type expression has no type of its own
    """The type of the setting at `parts`, None where there is no such setting."""
    if len(parts) == 3 and parts[0] == "kpi":  # noqa: PLR2004 - kpi, name, bound
        model: type[BaseModel] = KpiSettings
    elif len(parts) == 2 and parts[0] in Config.model_fields and parts[0] != "kpi":  # noqa: PLR2004 - section, key
        model = type(getattr(Config(), parts[0]))
    else:
        return None
    field = model.model_fields.get(parts[-1])
    return None if field is None else field.annotation


def _typed(text: str, annotation: Any) -> object:  # noqa: ANN401 - as above
    """`text` as a value of its setting's type; text that is none is left for validation to refuse."""
    try:
        value: object = TypeAdapter(annotation).validate_strings(text)
    except ValidationError:
        return text
    return value


def _validate(layers: Sequence[_Layer]) -> tuple[Config, list[str]]:
    """The configuration and its problems; while there are any, broken values are replaced by their defaults."""
    merged: Nested = {}
    for layer in layers:
        merged = _laid_over(merged, layer.values)
    broken: dict[str, str] = {}
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            path = ".".join(str(part) for part in detail["loc"])
            broken[path] = _sentence(path, detail)
            _remove(merged, detail["loc"])
        config = Config.model_validate(merged)
    found = [*broken.items(), *rule_problems(config, broken)]
    return config, [f"{path}: {text}{_where(path, layers)}" for path, text in found]


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Nested:
    merged = dict(below)
    for key, value in above.items():
        lower = merged.get(key)
        nested = isinstance(value, Mapping) and isinstance(lower, Mapping)
        merged[key] = _laid_over(lower, value) if nested else value  # type: ignore[arg-type] # both are mappings
    return merged


def _remove(nested: Nested, location: Sequence[int | str]) -> None:
    *tables, last = location
    table: Any = nested
    for part in tables:
        table[part] = dict(table[part])  # never change what the caller owns
        table = table[part]
    del table[last]


def _sentence(path: str, detail: ErrorDetails) -> str:
    section, _, key = path.rpartition(".")
    if detail["type"] == "extra_forbidden":
        siblings = [known.rpartition(".")[2] for known in _paths() if known.startswith(f"{section}.")]
        return f"unknown key{_suggestion(key, siblings or [*Config.model_fields])}"
    expected = detail["msg"].removeprefix("Input ")
    if path in _NEVER_SHOWN or isinstance(detail["input"], Mapping):
        return expected
    given = repr(detail["input"])
    shown = given if len(given) <= _SHOWN_CHARACTERS else f"{given[:_SHOWN_CHARACTERS]}…"
    return f"{expected}, not {shown}"


def _suggestion(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(sorted(known))}" if len(known) <= 40 else ""  # noqa: PLR2004 - what one can read


def _where(path: str, layers: Sequence[_Layer]) -> str:
    places = [place for layer in reversed(layers) if (place := layer.names(path)) is not None]
    return f" ({places[0]})" if places else ""


def _variable(path: str) -> str:
    return ENV_PREFIX + path.upper().replace(".", "__")


def _paths() -> Iterator[str]:
    for section, field in Config.model_fields.items():
        if section != "kpi" and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from (f"{section}.{key}" for key in field.annotation.model_fields)


def _table(name: str, table: Mapping[str, object]) -> str:
    lines = [f"[{name}]"]
    for key, value in table.items():
        lines.append(f"# {key} is not set" if value is None else f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    # A JSON string, number or boolean is a TOML one too, as long as nothing is escaped as a surrogate pair.
    return json.dumps(value, ensure_ascii=False)

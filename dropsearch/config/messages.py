"""One-line messages for Hydra's and OmegaConf's errors."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException, SearchPathException
from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)
from yaml import YAMLError

from dropsearch.config.schema import Config
from dropsearch.core.errors import close_match
from dropsearch.core.override_text import written

GROUPS = (
    "model",
    "data",
    "space",
    "optimizer",
    "sampler",
    "pruner",
    "engine",
    "trainer",
    "tracking",
    "evidence",
    "cluster",
    "experiment",
)

SEE_ALL = "python -m dropsearch --cfg job shows them all"

_KEY = re.compile(r"\+{0,2}\w+(?:\.\w+)*", re.ASCII)

UNREAD = (TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""Errors that Hydra and OmegaConf raise for unexpected overrides, such as model=[1]."""

# Hydra raises ValueError for an override such as model=null.
ConfigurationErrors = (HydraException, OmegaConfBaseException, ValueError, YAMLError, *UNREAD)


def conf_folder() -> Path:
    """Return the absolute path of conf/, which is inside an installed package or next to it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside, beside = package / "conf", package.parent / "conf"
    return inside if inside.is_dir() else beside


def known_keys() -> set[str]:
    """Return every key of the schema; the sections in `FREE` accept more."""
    return set(_keys(Config, ""))


def _keys(schema: type, prefix: str) -> Iterator[str]:
    for field in dataclasses.fields(schema):
        yield f"{prefix}{field.name}"
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else None
        if dataclasses.is_dataclass(default):
            yield from _keys(type(default), f"{prefix}{field.name}.")


def one_line(error: Exception) -> str:
    """Return a message for a configuration error: rule, value, key, and a suggestion for a misspelled name."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, YAMLError):
        return _yaml(error)
    if isinstance(error, SearchPathException):
        return f"--config-dir must be a folder of configurations ({_first(error)}): choose another folder"
    if isinstance(error, UNREAD) and not isinstance(error, OmegaConfBaseException):
        return f"an override must be KEY=VALUE or GROUP=OPTION, which Hydra cannot parse ({_first(error)}): {SEE_ALL}"
    for cause in (error, error.__cause__, error.__context__):
        if isinstance(cause, OmegaConfBaseException):
            return _value(cause)
    return _composition(_first(error))


def _missing(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = [option for option in error.options or () if not option.startswith("_")]
    if not options:
        return f'--config-name must name a file of the configuration folder, got "{name}": leave it out for config.yaml'
    return f'{group} must be one of {", ".join(options)}, got "{name}"{close_match(name, options)}'


def _unreadable(error: OverrideParseException) -> str:
    key, equals, value = str(error.override).partition("=")
    given = " ".join(str(error.override).split())
    hint = "python -m dropsearch --help"
    if equals and value and _KEY.fullmatch(key):
        hint = f"quote the value for Hydra as well, {_quoted(f'{key}={written(value)}')}"
    return f'an override must be KEY=VALUE or GROUP=OPTION, got "{given}": {hint}'


def _quoted(word: str) -> str:
    """Return a word as a shell takes it; in double quotes where it can be, since Hydra's are single ones."""
    return shlex.quote(word) if set(word) & set('"$`\\!') else f'"{word}"'


def _yaml(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{mark.name}, line {mark.line + 1}," if mark is not None else "a configuration file"
    problem = getattr(error, "problem", None) or _first(error)
    return f"{where} must be valid YAML ({problem}): correct the file"


def _value(error: OmegaConfBaseException) -> str:
    key = str(getattr(error, "full_key", None) or "")
    text = _first(error)
    if isinstance(error, MissingMandatoryValue) or "MissingMandatoryValue" in text:
        return f"{text.rpartition(': ')[2] or key} must be set, but is missing: {SEE_ALL}"
    if isinstance(error, InterpolationResolutionError):
        return f"{key} must be a value or refer to an existing key, got a reference that cannot be resolved ({text})"
    if isinstance(error, ConfigKeyError | ConfigAttributeError) and "not in" in text:
        return unknown_key(key)
    if "does not support deletion" in text:
        return f"{key} must have a value, so ~ cannot remove it: set another value instead"
    return f"{key} has the wrong type: {text}" if key else text


def _composition(text: str) -> str:
    if text.startswith("Config group override must be a string"):
        return f"GROUP=OPTION must name an option of the group, got {text.rpartition(' ')[2]}: {SEE_ALL}"
    removed = re.match(r"Could not delete '(.*)'\. No match in the defaults list", text)
    if removed:
        return f"~{removed[1]} must name a group or key that the configuration has: {SEE_ALL}"
    several = re.match(r"Multiple values for (?:schema/)?(\w+)", text)
    if several:
        return f"{several[1]} must be one option, got several: {several[1]}=A,B with -m runs one after the other"
    return text


def unknown_key(key: str) -> str:
    """Return a message for an unknown key, with a suggestion or the keys of its section."""
    return f'"{key}" is not a key of the configuration{_meant(key)}: {SEE_ALL}'


def _meant(key: str) -> str:
    known = known_keys() | set(_arguments_of_models())
    section, _, last = key.rpartition(".")
    beside = {name.rpartition(".")[2]: name for name in sorted(known) if name.rpartition(".")[0] == section}
    if section in known:
        near = _same_as(close_match(last, beside), beside)
        return near or f" ({section} has {', '.join(beside)})"
    if section:
        return close_match(key, known | set(GROUPS))
    # Groups first: they are typed most often, and short keys such as mode match many words.
    whole = close_match(key, GROUPS) or close_match(key, known)
    by_last = {name.rpartition(".")[2]: name for name in sorted(known, key=lambda name: (-name.count("."), name))}
    return whole or _same_as(close_match(last, by_last), by_last)


def _arguments_of_models() -> Iterator[str]:
    """Yield the keys of the models in conf/, which are not part of the schema."""
    for path in sorted((conf_folder() / "model").glob("*.yaml")):
        yield from (f"model.{name}" for name in OmegaConf.load(path).model if not name.startswith("_"))


def _same_as(hint: str, full: dict[str, str]) -> str:
    """Replace the last part of a key by the full key in a hint of `close_match`."""
    found = re.search(r'"(.*)"', hint)
    return hint.replace(f'"{found[1]}"', f'"{full[found[1]]}"') if found else ""


def _first(error: BaseException) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return re.sub(r"\s+", " ", line)

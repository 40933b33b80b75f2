"""User configuration files named on the command line, read before Hydra to find the classes they set."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dropsearch.config.messages import conf_folder
from dropsearch.core.errors import InputError

CONFIG_PATH, CONFIG_DIR = ("--config-path", "-cp"), ("--config-dir", "-cd")
CONFIG_NAME = ("--config-name", "-cn")
_HEADER = re.compile(r"#\s*@(\w+)\s+(\S+)")

HYDRA_OF_BEST: Mapping[str, Any] = {
    "defaults": [
        "schema",
        "_self_",
        {"override hydra/job_logging": "disabled"},
        {"override hydra/hydra_logging": "disabled"},
    ],
    "hydra": {"job": {"name": "dropsearch"}, "output_subdir": None, "run": {"dir": "."}},
}
"""What a file of ``best/`` tells Hydra: it reads no other file of its folder."""

GLOBAL = "# @package _global_"
"""First line of a file in a folder whose keys are those of the whole configuration."""


@dataclass(frozen=True)
class UserFiles:
    """Classes and groups set in the files of ``--config-name`` and ``experiment=NAME``.

    Args:
        primary: Content of the ``--config-name`` file; None if conf/config.yaml is used.
        experiments: Contents of the experiment files, one per name.
    """

    primary: Mapping[str, Any] | None
    experiments: tuple[Mapping[str, Any], ...]

    @classmethod
    def named_by(cls, arguments: Sequence[str]) -> UserFiles:
        """Read the files named on a command line. Unreadable files count as empty, since Hydra reports them.

        Raises:
            InputError: A file of ``best/`` names a class that its run did not build, or an experiment has no package.
        """
        folders = [option(arguments, *CONFIG_PATH), option(arguments, *CONFIG_DIR)]
        name = option(arguments, *CONFIG_NAME)
        path, primary = (None, None) if name is None else next(_found(folders, name), (None, {}))
        if path is not None and primary is not None:
            _require_built(path, primary)
        chosen = next((word.partition("=")[2] for word in arguments if _key(word) == "experiment"), "")
        experiments = [name.strip() for name in chosen.strip("[]").split(",")] if chosen else _experiments(primary)
        found = [next(_found(folders, f"experiment/{each}"), None) for each in experiments if each]
        return cls(primary, tuple(_checked(*each) for each in found if each is not None))

    @property
    def has_groups(self) -> bool:
        """Whether the groups of conf/config.yaml are in the defaults list."""
        return self.primary is None or "config" in self.chosen

    @property
    def has_schema(self) -> bool:
        """Whether the schema is in the defaults list, so that Hydra knows the configuration keys."""
        return self.has_groups or "schema" in self.chosen

    @property
    def search_path(self) -> list[str]:
        """Further folders of configurations that the primary file names."""
        hydra = (self.primary or {}).get("hydra")
        found = hydra.get("searchpath") if isinstance(hydra, Mapping) else None
        return [str(each) for each in _listed(found)]

    @property
    def targets(self) -> set[str]:
        """Groups for which a file sets `_target_` without choosing an option."""
        return {
            group
            for file in (self.primary or {}, *self.experiments)
            for group, inside in file.items()
            if isinstance(inside, Mapping) and "_target_" in inside
        } - self.chosen

    @property
    def chosen(self) -> set[str]:
        """Entries of the defaults lists: files, and groups with a chosen option."""
        return {
            str(name).removeprefix("override ").lstrip("/")
            for file in (self.primary or {}, *self.experiments)
            for entry in _listed(file.get("defaults"))
            for name in (entry if isinstance(entry, Mapping) else [entry])
        }


def _listed(entries: Any) -> list[Any]:
    return entries if isinstance(entries, list) else []


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _experiments(primary: Mapping[str, Any] | None) -> list[str]:
    """Return the experiments that the defaults list of a file chooses."""
    entries = [entry for entry in _listed((primary or {}).get("defaults")) if isinstance(entry, Mapping)]
    chosen = [name for each in entries for key, name in each.items() if str(key).split("/")[-1] == "experiment"]
    return [str(name) for each in chosen for name in (each if isinstance(each, list) else [each])]


def _checked(path: Path, content: Mapping[str, Any]) -> Mapping[str, Any]:
    if _package(path) in ("", "_group_"):
        raise InputError(
            f'{path} must begin with the line "{GLOBAL}", since Hydra puts the keys of a file without it under '
            '"experiment": write this line first'
        )
    return content


def _require_built(path: Path, content: Mapping[str, Any]) -> None:
    """Check that a file in ``best/`` of a run builds only what the run built, by the record of the run beside it."""
    record = path.absolute().parent.parent / "results.json"
    if path.absolute().parent.name != "best" or not record.is_file():
        return
    try:
        built = {target for _, target in _targets(json.loads(record.read_text(encoding="utf-8")))}
    except (OSError, ValueError):
        built = set[str]()
    changed = [(key, str(content.get(key))) for key, entry in HYDRA_OF_BEST.items() if content.get(key) != entry]
    for place, target in (*changed, *_targets(content)):
        if target not in built:
            raise InputError(
                f"{path} must build only what its run built ({', '.join(sorted(built)) or 'nothing'}), got "
                f"{place}={target}: undo the change, or copy the file into a folder of yours and name it there"
            )


def _targets(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield each place with the key ``_target_``, and what it names."""
    inside = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in inside:
        at = f"{place}.{key}" if place else str(key)
        if key == "_target_":
            yield at, str(entry)
        yield from _targets(entry, at)


def _package(path: Path) -> str:
    """Return the package that the first lines of a file name, as Hydra reads them; empty if they name none."""
    for line in filter(None, map(str.strip, path.read_text(encoding="utf-8").splitlines())):
        if not (header := _HEADER.match(line)):
            break
        if header[1] == "package":
            return header[2]
    return ""


def option(arguments: Sequence[str], *names: str) -> str | None:
    """Return the value of a command line option, ``--name VALUE`` or ``--name=VALUE``, or None."""
    for place, word in enumerate(arguments):
        if word in names:
            return "".join(arguments[place + 1 : place + 2])
        if word.partition("=")[0] in names:
            return word.partition("=")[2]
    return None


def _found(folders: Sequence[str | None], name: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the files with a name, and their contents."""
    for folder in (*folders, str(conf_folder())):
        path = Path(folder or "", f"{name.removesuffix('.yaml')}.yaml")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) if folder else None
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(content, Mapping):
            yield path, content

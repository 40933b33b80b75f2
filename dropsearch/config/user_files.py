"""User configuration files named on the command line, read before Hydra to find the classes they set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dropsearch.config.messages import conf_folder


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
        """Read the files named on a command line. Unreadable files count as empty, since Hydra reports them."""
        folders = [_option(arguments, "--config-path", "-cp"), _option(arguments, "--config-dir", "-cd")]
        name = _option(arguments, "--config-name", "-cn")
        chosen = next((word.partition("=")[2] for word in arguments if _key(word) == "experiment"), "")
        experiments = [name.strip() for name in chosen.strip("[]").split(",") if name.strip()]
        return cls(
            None if name is None else _content(folders, name),
            tuple(_content(folders, f"experiment/{each}") for each in experiments),
        )

    @property
    def has_groups(self) -> bool:
        """Whether the groups of conf/config.yaml are in the defaults list."""
        return self.primary is None or "config" in self.chosen

    @property
    def has_schema(self) -> bool:
        """Whether the schema is in the defaults list, so that Hydra knows the configuration keys."""
        return self.has_groups or "schema" in self.chosen

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


def _option(arguments: Sequence[str], *names: str) -> str | None:
    """Return the value of a command line option, ``--name VALUE`` or ``--name=VALUE``, or None."""
    for place, word in enumerate(arguments):
        if word in names:
            return "".join(arguments[place + 1 : place + 2])
        if word.partition("=")[0] in names:
            return word.partition("=")[2]
    return None


def _content(folders: Sequence[str | None], name: str) -> Mapping[str, Any]:
    """Return the content of the first file with this name."""
    return next(_found((*folders, str(conf_folder())), f"{name.removesuffix('.yaml')}.yaml"), {})


def _found(folders: Sequence[str | None], name: str) -> Iterator[Mapping[str, Any]]:
    for folder in folders:
        try:
            content = yaml.safe_load(Path(folder, name).read_text(encoding="utf-8")) if folder else None
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(content, Mapping):
            yield content

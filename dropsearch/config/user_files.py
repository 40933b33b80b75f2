"""Configuration files of the user's own that a command line names: read ahead, for what they say of classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dropsearch.config.messages import conf_folder


@dataclass(frozen=True)
class UserFiles:
    """What the file of ``--config-name`` and that of ``experiment=NAME`` say of classes and of groups.

    Args:
        primary: The content of the former; None where conf/config.yaml is used.
        experiments: The contents of the latter, one for each name.
    """

    primary: Mapping[str, Any] | None
    experiments: tuple[Mapping[str, Any], ...]

    @classmethod
    def named_by(cls, arguments: Sequence[str]) -> UserFiles:
        """Read the files that a command line names; what cannot be read is empty, for Hydra says what is wrong."""
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
        """Whether the groups of conf/config.yaml are there."""
        return self.primary is None or "config" in self._defaults

    @property
    def has_schema(self) -> bool:
        """Whether Hydra knows the keys of the configuration."""
        return self.has_groups or "schema" in self._defaults

    @property
    def targets(self) -> set[str]:
        """The groups whose class a file names itself, without choosing an option."""
        return {
            group
            for file in (self.primary or {}, *self.experiments)
            for group, inside in file.items()
            if isinstance(inside, Mapping) and "_target_" in inside
        } - self._defaults

    @property
    def _defaults(self) -> set[str]:
        """The entries of the defaults lists: files, and groups of which an option is chosen."""
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
    """Return what an option of the command line has, ``--name VALUE`` or ``--name=VALUE``; None without it."""
    for place, word in enumerate(arguments):
        if word in names:
            return "".join(arguments[place + 1 : place + 2])
        if word.partition("=")[0] in names:
            return word.partition("=")[2]
    return None


def _content(folders: Sequence[str | None], name: str) -> Mapping[str, Any]:
    """Return what the first file of this name holds."""
    return next(_found((*folders, str(conf_folder())), f"{name.removesuffix('.yaml')}.yaml"), {})


def _found(folders: Sequence[str | None], name: str) -> Iterator[Mapping[str, Any]]:
    for folder in folders:
        try:
            content = yaml.safe_load(Path(folder, name).read_text(encoding="utf-8")) if folder else None
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(content, Mapping):
            yield content

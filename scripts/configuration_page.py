"""Write docs/configuration.md: each key with its default, its legal values and its meaning.

    python scripts/configuration_page.py [--check]

Defaults and meanings are the lines and comments of conf/, legal values the constraints of the schema and of built-in
classes. With --check nothing is written, and the exit status is 1 where the page is not up to date.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hydra.utils import get_object

from dropsearch.config.messages import GROUPS
from dropsearch.config.schema import Config
from dropsearch.core.constraints import Constraint, argument_constraints, field_constraint

ROOT = Path(__file__).resolve().parents[1]
CONF, PAGE = ROOT / "conf", ROOT / "docs" / "configuration.md"
HEAD = """# Configuration

Every key of the command line. `KEY=VALUE` sets a key and `GROUP=OPTION` takes another file of a folder of `conf/`;
`python -m dropsearch --cfg job` prints all values of a run without running it. Your own files lie in a folder that
`--config-dir` names ([Your module](user-module.md)). This page is generated from `conf/` and its comments by
`python scripts/configuration_page.py`.
"""
LINE = re.compile(
    r"^(?P<indent> *)(?P<key>[a-z_]\w*):"
    r"(?: +(?P<value>\"[^\"]*\"|\{.*?\}(?= |$)|\[[^]]*\]|[^ #{\[][^#]*?))?"
    r"(?: *# (?P<text>.*))?$"
)
KINDS = {"int": "integer", "float": "number", "bool": "true or false", "str": "text"}


@dataclass
class Key:
    """A key of a file of conf/."""

    name: str
    value: str
    meaning: str


def keys_of(path: Path) -> Iterator[Key]:
    """Yield the keys of a file below their sections, each with its comment and the lines that continue it."""
    section, last = "", None
    for line in path.read_text(encoding="utf-8").splitlines():
        found = LINE.match(line)
        if found is None:
            if last is not None and re.match(r"^ {8,}# ", line):
                last.meaning += " " + line.strip()[2:]
                continue
            last, section = None, "" if line[:1] not in (" ", "") else section
            continue
        if not found["indent"]:
            section = ""
        name, value = section + found["key"], found["value"]
        if value is None:
            section, last = f"{name}.", None
            continue
        last = Key(name, value.strip(), found["text"] or "")
        yield last


def title_of(path: Path) -> str:
    """Return the first comment of a file."""
    lines = [line[2:] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    return next((line for line in lines if not line.startswith("@package")), "")


def group_table(group: str) -> Iterator[str]:
    """Yield the lines of a group: its options, then its keys."""
    files = sorted((CONF / group).glob("*.yaml"))
    (chosen,) = re.findall(rf"^  - {group}: \"?(\w+)", (CONF / "config.yaml").read_text(encoding="utf-8"), re.M)
    yield f"## {group}\n"
    for path in files:
        default = " (default)" if path.stem == chosen else ""
        title = title_of(path) or data_title(path.stem)
        yield f"- `{group}={path.stem}`{default}: {title[:1].upper()}{title[1:].rstrip('.')}."
    known: dict[str, dict[str, Key]] = {}
    for path in files:
        for key in keys_of(path):
            name = key.name if key.name.startswith(f"{group}.") else f"{group}.{key.name}"
            if name.rpartition(".")[2] not in ("name", "_target_", "_convert_") and not name.startswith(f"{group}.arm"):
                known.setdefault(name, {})[path.stem] = key
    if known:
        yield ""
        yield from table(
            (name, values_of(options, len(files)), legal(name, files), meaning(options))
            for name, options in known.items()
        )
    yield ""


def data_title(name: str) -> str:
    """Return the description of a built-in data set."""
    from dropsearch.datasets.catalogue import describe

    return describe(name).title


def values_of(options: Mapping[str, Key], files: int) -> str:
    """Return a key's default: the value of most options, then each other value with its options."""
    by_value: dict[str, list[str]] = {}
    for name, key in options.items():
        by_value.setdefault(key.value, []).append(name)
    usual = max(by_value, key=lambda value: len(by_value[value])) if len(options) > 2 or len(options) == files else None
    parts = [code(usual)] if usual is not None else []
    for value, names in by_value.items():
        if value != usual:
            parts.append(f"{code(value)} ({', '.join(f'`{name}`' for name in names)})")
    return ", ".join(parts)


def meaning(options: Mapping[str, Key]) -> str:
    """Return the first comment that an option's file gives."""
    return next((key.meaning for key in options.values() if key.meaning), "")


def code(value: str) -> str:
    """Return a value as code; the two numbers of a range in place of the resolvers around them."""
    shown = re.sub(r'"\$\{unless_given:([^}]*)\}"', r"\1", value)
    return f"`{shown}`"


def legal(name: str, files: list[Path] | None = None) -> str:
    """Return the legal values of a key, from the schema or from the arguments of a built-in class."""
    kind, constraint = schema_field(name)
    constraint = constraint or argument_constraint(name, files or [])
    return words(constraint, kind) if constraint else kind


def schema_field(name: str) -> tuple[str, Constraint | None]:
    """Return the kind of a key's field in the schema, in words, and its constraint."""
    holder: Any = Config
    *sections, last = name.split(".")
    for section in sections:
        holder = get_type_hints(holder).get(section)
    if not dataclasses.is_dataclass(holder):
        return "", None
    hint = get_type_hints(holder).get(last)
    kind = next((KINDS[kind.__name__] for kind in (int, float, bool) if hint in (kind, kind | None)), "")
    constraints = (field_constraint(each) for each in dataclasses.fields(holder) if each.name == last)
    return kind, next(constraints, None)


def argument_constraint(name: str, files: list[Path]) -> Constraint | None:
    """Return the constraint of an argument of a built-in class."""
    for path in files:
        target = re.search(r"_target_: (\S+)", path.read_text())
        if target:
            for constraint in argument_constraints(get_object(target[1])).get(name.rpartition(".")[2], ()):
                return constraint
    return None


def words(constraint: Constraint, kind: str = "") -> str:
    """Return a constraint in words; `kind` stands where it names none."""
    if constraint.one_of:
        return ", ".join(f"`{value}`" for value in constraint.one_of)
    limits = {
        "at least": constraint.at_least,
        "above": constraint.above,
        "at most": constraint.at_most,
        "below": constraint.below,
    }
    rules = [f"{word} {limit:,}" for word, limit in limits.items() if limit is not None and abs(limit) < 1e9]
    kind = KINDS.get(constraint.kind, kind)
    text = ", ".join(filter(None, [kind, "odd" if constraint.odd else "", *rules]))
    return f"list: {text}" if constraint.most_items else text


def table(rows: Iterator[tuple[str, str, str, str]]) -> Iterator[str]:
    """Yield a table of keys."""
    yield "| key | default | values | meaning |"
    yield "| :-- | :-- | :-- | :-- |"
    for name, value, values, text in rows:
        text = "" if text.replace(" or ", ", ") == values.replace("`", "") else text  # nothing twice
        yield f"| `{name}` | {value} | {values} | {text} |"


def page() -> str:
    """Return the whole page."""
    keys = [key for key in keys_of(CONF / "config.yaml") if not key.name.startswith(("hydra.", "help", "defaults"))]
    lines = [HEAD, "## The run\n"]
    lines += table((key.name, code(key.value), legal(key.name), key.meaning) for key in keys)
    lines.append("")
    for group in GROUPS:
        if group != "experiment":  # its files set keys of other groups
            lines += group_table(group)
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page is out of date")
    checks = parser.parse_args().check
    written = page()
    if not checks:
        PAGE.write_text(written, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") != written:
        print("docs/configuration.md is out of date: python scripts/configuration_page.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

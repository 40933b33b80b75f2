"""The pages for readers: what they tell to type can be typed, and what they name is there."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from dropsearch.config.command_line import with_user_targets
from dropsearch.config.compose import register_schemas, typed
from dropsearch.config.messages import conf_folder
from dropsearch.config.params import with_params
from tests.packaging.programs import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()
FOLDERS = ("conf", "docs", "dropsearch", "examples", "scripts", "tests")


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    lines = "".join(blocks("bash", page.read_text())).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def named(page: Path) -> set[str]:
    text = page.read_text()
    links = re.findall(r"\]\(<?([^)>#]+)[^)]*\)", text)
    quoted = [word for word in re.findall(r"`([^`\s]+)`", text) if word.partition("/")[0] in FOLDERS]
    return {link for link in links if "://" not in link} | {f"/{path}" for path in quoted}


def overrides(words: list[str]) -> list[str] | None:
    """What a command hands to dropsearch; None where it runs something else or a configuration of its own."""
    if "--config-dir" in words or not ({"scripts/run", "dropsearch"} & set(words)):
        return None
    return [word for word in words if "=" in word and not word.startswith("-")]


def jobs(words: list[str], given: list[str]) -> list[list[str]]:
    """The jobs of a command: a sweep (-m) has one for each value of each key, the others as they are at first."""
    if "-m" not in words:
        return [given]
    parsed = OverridesParser.create().parse_overrides(given)
    values = [
        [f"{key.key_or_group}={value}" for value in key.sweep_string_iterator()]
        if key.is_sweep_override()
        else [str(key.input_line)]
        for key in parsed
    ]
    first = [options[0] for options in values]
    return [[*first[:i], option, *first[i + 1 :]] for i, options in enumerate(values) for option in options]


def cases() -> list[tuple[str, ...]]:
    found = [
        tuple(job)
        for page in PAGES
        for words in commands(page)
        if (given := overrides(words)) is not None
        for job in jobs(words, given)
    ]
    return sorted(set(found))


def test_commands_are_found_at_all() -> None:
    assert ("data=spoken_digits", "model=rnn") in [tuple(sorted(case)) for case in cases()]
    assert len(cases()) >= 8


@pytest.mark.parametrize("case", cases(), ids=" ".join)
def test_the_overrides_of_every_command_compose_and_are_legal(case: tuple[str, ...]) -> None:
    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_folder())):
        typed(compose("config", overrides=with_params(with_user_targets(case))))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    missing = [n for n in named(page) if not (ROOT / n[1:] if n.startswith("/") else page.parent / n).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_script_that_a_page_runs_can_be_run(page: Path) -> None:
    scripts = [ROOT / words[0] for words in commands(page) if words[0].startswith("scripts/")]
    assert [script for script in scripts if not os.access(script, os.X_OK)] == []


def test_the_readme_lists_every_group_with_all_its_options() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", README, flags=re.MULTILINE))
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    options = {group: {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")} for group in groups}
    assert {group: set(re.findall(r"`(\w+)`", rows.get(group, ""))) for group in groups} == options

"""One concept has one word: words that the project replaced do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SEARCHED = ("dropsearch", "conf", "docs", "scripts", "examples", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")
TEXT = {"", ".py", ".md", ".yaml", ".yml", ".html", ".css", ".js"}

EVERYWHERE = {
    "textbook": "typical",
    "ledgers?": "store, study",
    "strangers?": "user module",
    "foreign": "user module, user data",
    "slots?": "row",
    "lightnings": "_compat.lightning",
    "dossiers?": "evidence",
    r"rehears\w*": "dry run",
    "surroundings": "prerequisites",
    r"announce(ments?|d|s)?": "run header",
    "nurser(y|ies)": "worker forks",
    "liveness": "check_dropout",
    "drafts?": "temporary file",
    "optimisers?": "optimizer",
    r"whomever|whoever|theretofore|lest": "a plain subject",
}
"""A pattern of a word, and what to write instead."""

IN_CODE = {
    r"(some|any)body('s)?|nobody": "the user, another process, user code",
    r"stands? in for|put right|is theirs": "replace, repair",
    r"(said|told) (:|\+)?=": "a noun: message, text, parts",
}
"""The same for docstrings, comments, messages and names of the package."""

IDENTIFIERS = (
    "AloneEngine", "WaitingRoom", "Rehearsal", "Ledger", "Recording", "Judge", "Kept", "left_behind", "knock",
    "is_own", "temporary_draft", "LastingStream", "Surroundings", "Announcement", "Nursery", "Dossier",
)  # fmt: skip
"""Names that were replaced."""

FOR_USERS = {
    r"nobody|whoever|lest": "a plain subject",
    r"somebody else's|someone else's": "a user module",
    r"of one's own": "user module, user data",
    r"in (an |one )?arrays?": "vectorized",
    r"alone or together": "sequential or vectorized",
    r"trains? alone": "sequentially",
    r"(alone|together) on (cpu|gpu|cuda)": "sequential, vectorized",
}
"""The same for the pages and files that a user reads first."""
PAGES = (
    "docs/architecture.md",
    "docs/results.md",
    "docs/operations.md",
    "docs/clusters.md",
    "docs/scaling.md",
    "docs/benchmarks.md",
    "docs/evidence.md",
    "docs/mlflow.md",
    "README.md",
    "CONTRIBUTING.md",
    "docs/index.md",
    "docs/api.md",
    "docs/guide.md",
    "docs/user-module.md",
    "dropsearch/__init__.py",
    "dropsearch/__main__.py",
    "dropsearch/api",
    "examples",
)

LEGAL = {("foreign", "foreign key"), ("foreign", "foreign_key")}
"""A pattern, and a use of it that is right."""


def files(places: tuple[str, ...]) -> list[Path]:
    """Text files in these places, without those that git ignores."""
    found = [
        path for place in places for path in ([ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("*"))
    ]
    return [path for path in found if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts]


def uses(pattern: str, places: tuple[str, ...]) -> list[str]:
    """Lines that hold a word, as FILE:LINE: text."""
    word = re.compile(rf"(?<![\w.])(?:{pattern})(?!\w)", re.IGNORECASE)
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in files(places)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if word.search(line) and not any(known == pattern and legal in line.lower() for known, legal in LEGAL)
    ]


@pytest.mark.parametrize("pattern", EVERYWHERE)
def test_a_replaced_word_is_not_used(pattern: str):
    assert uses(pattern, SEARCHED) == [], f"write {EVERYWHERE[pattern]}"


@pytest.mark.parametrize("pattern", IN_CODE)
def test_code_is_in_plain_words(pattern: str):
    assert uses(pattern, ("dropsearch", "conf")) == [], f"write {IN_CODE[pattern]}"


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_a_replaced_name_is_not_used(name: str):
    word = re.compile(rf"(?<!\w){name}(?!\w)")
    found = [
        path for path in files(("dropsearch", "scripts", "examples")) if word.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize("pattern", FOR_USERS)
def test_pages_for_users_are_in_plain_words(pattern: str):
    assert uses(pattern, PAGES) == [], f"write {FOR_USERS[pattern]}"


def test_the_words_are_found_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tests.test_words.ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("a slot\na Ledger of trials\nslotted __slots__\na foreign key\n")
    assert uses("slots?", ("docs",)) == ["docs/page.md:1: a slot"]
    assert uses("ledgers?", ("docs",)) == ["docs/page.md:2: a Ledger of trials"]
    assert uses("foreign", ("docs",)) == []

"""The guide: what it tells to type prints what it shows."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from tests.app.conftest import Cli
from tests.app.test_own_module_page import LITTLE, little
from tests.packaging.test_pages import ROOT, commands

GUIDE = ROOT / "docs" / "guide.md"
SHOWN = ("On your own module, in Python", "A tagger with an LSTM", "An encoder with attention")
WITHOUT = "A module without any dropout"


def section(title: str) -> list[tuple[str, str]]:
    """The blocks of code and of output under a headline."""
    text = re.split(r"^## ", GUIDE.read_text().split(f"## {title}\n")[1], flags=re.MULTILINE)[0]
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_code_prints_what_is_shown() -> None:
    names: dict[str, Any] = {}
    for title in SHOWN:
        blocks = section(title)
        assert len(blocks) >= 2, title
        for (language, code), (following, output) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
            if language != "python":
                continue
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, names)
            assert printed.getvalue() == (output if following == "text" else ""), code


def test_every_headline_is_tested() -> None:
    titles = re.findall(r"^## (.*)$", GUIDE.read_text(), re.MULTILINE)
    assert titles == ["From the command line", *SHOWN, "Searched from Python", WITHOUT]


@pytest.mark.parametrize("number", range(4))
def test_a_command_does_what_is_shown(folder: Path, cli: Cli, number: int) -> None:
    words, shown = commands(GUIDE)[number], [code for language, code in section("From the command line")]
    ended = cli(*words[3:], *(() if "task=sites" in words else LITTLE))
    assert ended.status == 0, ended.err
    if "task=sites" in words:
        assert (ended.out, ended.left) == (shown[2 * number + 1], [])
    else:
        assert "features.2" in (folder / "outputs" / "LitNet-Digits" / "best" / "dropout.yaml").read_text()


def test_the_search_from_python_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ((_, code),) = section("Searched from Python")
    names: dict[str, Any] = {}
    exec("import dropsearch\nfrom torch import nn\n" + little(code), names)
    assert "features.2" in names["result"].best_rates
    assert "features.2" in capsys.readouterr().out


def test_dropout_is_put_into_a_module_without_any_and_searched(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (_, first), (_, shown), (_, search) = section(WITHOUT)
    names: dict[str, Any] = {"__name__": "plain"}
    exec(first, names)
    assert capsys.readouterr().out == shown
    exec(little(search), names)
    assert list(names["result"].rates("dropout")) == ["layers.2"]

"""What the guide says about a module of one's own is what happens."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide.md"


def section(title: str) -> str:
    return re.split(r"^## ", GUIDE.read_text().split(f"## {title}\n")[1], flags=re.MULTILINE)[0]


def test_the_code_on_ones_own_module_prints_what_the_guide_shows() -> None:
    blocks = re.findall(r"^```(python|text)\n(.*?)^```", section("On your own module, in Python"), re.M | re.S)
    assert len(blocks) == 11
    names: dict[str, Any] = {}
    printed = ""
    for language, block in blocks:
        if language == "text":
            assert printed == block
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(block, names)
        printed = out.getvalue()

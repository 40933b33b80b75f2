"""The page of operations says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dropsearch.core.records.arms import typical_rate
from dropsearch.dropout.ops import OPS, own_code

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
ROWS = {cells[0]: cells for line in PAGE.splitlines() if len(cells := line.strip("| ").split(" | ")) == 5}


def test_the_example_prints_what_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_code, "_registered", [])
    code, shown = (re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) for kind in ("python", "text"))
    assert code is not None
    assert shown is not None
    exec(compile(code[1], "operations.md", "exec"), {"__name__": "page"})
    assert capsys.readouterr().out == shown[1]


@pytest.mark.parametrize(
    "op", [*own_code.FAMILIES[:-1], own_code.LAYERS, *dict.fromkeys(OPS.values())], ids=lambda op: op.name
)
def test_each_operation_is_in_the_table_with_its_kind_and_typical_rate(op: Any) -> None:
    row = ROWS[op.name.removeprefix("feature ")]
    expected = (op.kind, f"{typical_rate(op.kind):.2f}") if op.kind else ("by its place", "by its kind")
    assert tuple(row[3:]) == expected

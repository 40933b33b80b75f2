"""The list of all that is measured."""

from __future__ import annotations

from collections import Counter

from dropsearch.analysis.measures import MEASURES
from dropsearch.analysis.measures.corruptions import STRONGEST
from dropsearch.report.figures.effects import CORRUPTIONS


def test_no_two_measures_have_a_name_in_common() -> None:
    names = Counter(name for measure in MEASURES.values() for name in (*measure.values, *measure.series))
    assert [name for name, count in names.items() if count > 1] == []


def test_every_corruption_has_its_panel_in_the_figure() -> None:
    assert [kind.__name__ for kind in STRONGEST] == [*CORRUPTIONS]

"""A warning of the user's own code is read once."""

from __future__ import annotations

import warnings

from dropsearch.core.environment import each_warning_once


def test_a_warning_is_shown_once_though_filters_change_between() -> None:
    before = warnings.showwarning
    with warnings.catch_warnings(record=True) as shown, each_warning_once():
        for what in ("one layer", "one layer", "two layers"):
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn(what, stacklevel=1)
    assert [str(each.message) for each in shown] == ["one layer", "two layers"]
    assert warnings.showwarning is before

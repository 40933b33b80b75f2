"""The time that a run still takes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from dropsearch.report.progress import Forecast, Stage
from tests.fake_clock import Clock


def run(forecast: Forecast, clock: Clock, units: int, seconds: float) -> None:
    for _ in range(units):
        clock.now += seconds
        forecast.advance()


def searched(*after: Stage) -> tuple[Forecast, Clock]:
    """Return a forecast whose search is over, as fast as expected, and its clock."""
    clock = Clock()
    forecast = Forecast([Stage("search", 10, 1.0), *after], clock)
    forecast.begin("search")
    run(forecast, clock, 10, 1.0)
    return forecast, clock


def test_all_stages_count() -> None:
    forecast = Forecast([Stage("search", 100, 1.0), Stage("evidence", 10, 5.0), Stage("report", 1, 7.0)], Clock())
    assert forecast.left() == 157
    assert forecast.share() == 0


def test_a_measured_pace_replaces_the_expected_one() -> None:
    clock = Clock()
    forecast = Forecast([Stage("search", 100, 1.0)], clock)
    forecast.begin("search")
    run(forecast, clock, 50, 4.0)
    assert forecast.left() == pytest.approx(200, rel=0.05)


def test_a_stage_like_another_takes_its_pace() -> None:
    clock = Clock()
    forecast = Forecast([Stage("search", 10), Stage("confirm", 10, like="search")], clock)
    assert forecast.left() is None
    forecast.begin("search")
    run(forecast, clock, 5, 2.0)
    assert forecast.by_stage() == {"search": pytest.approx(10), "confirm": pytest.approx(20)}


def test_the_share_is_below_one_while_work_remains() -> None:
    forecast, clock = searched(Stage("report", 1, 0.001))
    forecast.begin("report")
    clock.now += 1000
    assert forecast.share() <= 0.99
    forecast.finish()
    assert forecast.share() == 1


def test_time_left_falls_while_nothing_ends() -> None:
    clock = Clock()
    forecast = Forecast([Stage("search", 10, 10.0)], clock)
    forecast.begin("search")
    clock.now += 5
    assert forecast.left() == 95
    clock.now += 995  # a trial that takes so long is no reason to promise the same end for ever
    assert forecast.left() == 90 + 250


def test_a_wait_is_no_part_of_the_pace() -> None:
    forecast, clock = searched(Stage("report", 10, 1.0))
    forecast.begin("report")
    clock.now += 40  # until a server answers
    forecast.skip_wait()
    run(forecast, clock, 1, 1.0)
    assert forecast.left() == pytest.approx(9)


def test_a_unit_that_takes_longer_than_expected_moves_the_share_by_little() -> None:
    forecast, clock = searched(Stage("report", 1, 10.0))
    forecast.begin("report")
    shares = []
    for _ in range(60):
        clock.now += 1
        shares.append(forecast.share())
    assert min(after - before for before, after in pairwise(shares)) > -0.01
    assert max(shares) < 0.95


def test_a_stage_that_was_shorter_than_expected_leaves_nothing() -> None:
    forecast = Forecast([Stage("search", 10, 10.0), Stage("report", 1, 3.0)], Clock())
    forecast.begin("search")
    forecast.begin("report")
    assert forecast.by_stage() == {"report": 3.0}


def test_what_an_earlier_run_did_is_neither_work_nor_speed() -> None:
    clock = Clock()
    forecast = Forecast([Stage("search", 0, 10.0), Stage("evidence", 4, 1.0)], clock)
    forecast.begin("search", 0.0)
    assert forecast.left() == 4
    assert forecast.share() == 0


def test_the_share_does_not_fall_when_the_rest_takes_longer_than_expected() -> None:
    forecast, clock = searched(Stage("evidence", 10, 0.25))
    forecast.begin("evidence")
    shares = [forecast.share()]
    for _ in range(10):
        run(forecast, clock, 1, 5.0)
        shares.append(forecast.share())
    assert shares[0] == pytest.approx(0.8)
    assert shares == sorted(shares)
    assert shares[-1] <= 0.99

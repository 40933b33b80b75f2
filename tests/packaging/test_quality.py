"""The benchmark of time to quality: its rule, and the data of the side that it compares with."""

from __future__ import annotations

import math
import runpy
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench"


@contextmanager
def loaded(script: str) -> Iterator[dict[str, Any]]:
    """Yield what a script defines."""
    known = {*sys.modules}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield runpy.run_path(str(BENCH / script))
    for name in {*sys.modules} - known:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(f"{BENCH}/"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def quality() -> Iterator[dict[str, Any]]:
    """What quality.py defines."""
    with loaded("quality.py") as found:
        yield found


def test_plain_validates_on_examples_that_it_does_not_train_on() -> None:
    with warnings.catch_warnings(), loaded("plain.py") as plain:
        config = plain["compose_overrides"](plain["words"]("digits-mlp", "unused"))
        train, val = plain["built_in"](config, "dropout").loaders()
        seen, held_out = ([example.numpy().tobytes() for example, _ in part.dataset] for part in (train, val))
    assert (len(seen), len(held_out)) == (1078, 360)
    assert not {*seen} & {*held_out}


def trials(*losses: float | None) -> list[dict[str, Any]]:
    """Return trials that end every second, whose processor seconds are half of it."""
    return [{"wall": i, "cpu": i / 2, "loss": loss, "rates": [0.1 * i]} for i, loss in enumerate(losses, start=1)]


def judged(quality: dict[str, Any], **losses: float) -> Any:
    """Return a judge of the confirmed loss by searched loss, whose retrainings take 0.5 and 0.25 seconds."""
    return lambda trial: quality["Retrained"](losses[f"of{round(100 * trial['loss'])}"], 0.5, 0.25)


def test_only_a_better_trial_is_the_best_so_far(quality: dict[str, Any]) -> None:
    found = quality["best_so_far"](trials(None, 0.5, 0.7, None, 0.5, 0.3, 0.4))
    assert [trial["wall"] for trial in found] == [2, 6]


def test_the_target_is_reached_by_a_confirmed_loss(quality: dict[str, Any]) -> None:
    judge = judged(quality, of50=0.9, of30=0.41, of20=0.39)
    searched = trials(0.5, 0.3, 0.2)
    for target, expected in ((0.4, 3.0), (0.41, 2.0), (1.0, 1.0), (0.1, math.inf)):
        assert quality["seconds_to"](target, searched, judge, "wall", confirmed=False) == expected
    assert quality["seconds_to"](0.4, searched, judge, "wall", confirmed=True) == 3.5
    assert quality["seconds_to"](0.4, searched, judge, "cpu", confirmed=True) == 1.75


def test_a_row_compares_medians_and_says_how_often_the_target_was_reached(quality: dict[str, Any]) -> None:
    judge = judged(quality, of50=0.5, of40=0.4, of30=0.3, of20=0.2)

    def run(plain: list[float], ours: list[float]) -> dict[str, Any]:
        own = {"run": 2.0, "cpu": 1.0, "startup": 2.0, "startup_cpu": 1.0}
        peer = {"run": 12.0, "cpu": 6.0, "startup": 4.0, "startup_cpu": 2.0}
        return {"plain": {**peer, "ended": trials(*plain)}, "ours": {**own, "ended": trials(*ours)}}

    runs = [run([0.5, 0.4], [0.3]), run([0.4], [0.5, 0.4]), run([0.3], [0.5, 0.5])]
    name, what, target, all_trials, first, ours, reached, ratio, against, started = quality["row"](
        "digits", runs, judge, "wall"
    )
    assert (name, what, target, reached) == ("digits", "wall", "0.4000", "2 of 3")
    assert all_trials == "**12.0** (12.0 to 12.0)"
    assert first == "**1.0** (1.0 to 2.0)"
    assert ours == "**2.50** (1.50 to inf)"
    assert ratio == "**4.8** (0.0 to 8.0)"
    assert against == "**0.4** (0.0 to 1.3)"
    assert started == "**3.6** (0.0 to 4.6)"


def test_the_best_of_several_is_chosen_on_other_seeds_and_all_are_paid_for(quality: dict[str, Any]) -> None:
    ended = trials(0.5, 0.3, 0.4, 0.9)
    judge, screen = judged(quality, of50=0.6, of30=0.5, of40=0.2), judged(quality, of50=0.6, of30=0.5, of40=0.4)
    seconds = quality["seconds_with_screening"]
    assert seconds(0.2, ended, judge, screen, "wall", 3) == 3 + 3 * 0.5
    assert seconds(0.2, ended, judge, screen, "cpu", 2) == 3 / 2 + 2 * 0.25
    assert seconds(0.2, ended, judge, screen, "wall", 1) == math.inf  # the best so far is another one
    misled = judged(quality, of50=0.6, of30=0.1, of40=0.4)
    assert seconds(0.2, ended, judge, misled, "wall", 3) == math.inf


@pytest.mark.parametrize(("warm", "kind"), [([], "earlier"), (["data.train_size=500"], "earlier-data.train_size-500")])
def test_a_search_of_ours_starts_from_one_with_another_seed(
    quality: dict[str, Any], warm: list[str], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, tuple[str, ...], Path | None]] = []

    def side(script: str, name: str, kept: Path, *more: str, output: Path | None = None) -> dict[str, Any]:
        asked.append((kept.relative_to(tmp_path), more, output))
        return {}

    monkeypatch.setitem(quality["our_side"].__globals__, "side", side)
    chosen = SimpleNamespace(warm_start=None, one_thread=False, overrides=["engine.width=4"])
    quality["our_side"]("digits-mlp", chosen, tmp_path, 3, "sampler=tpe")
    chosen.warm_start = warm
    quality["our_side"]("digits-mlp", chosen, tmp_path, 3, "sampler=tpe")
    shared, before = ("sampler=tpe", "pruner=median", "engine.width=4"), tmp_path / f"digits-mlp-{kind}-3"
    assert asked == [
        (Path("digits-mlp-ours-3.json"), (*shared, "seed=3"), None),
        (Path(before.name, "measured.json"), (*shared, "seed=1003", "study.name=earlier", *warm), before),
        (Path(f"digits-mlp-ours-after-{kind}-3.json"), (*shared, "seed=3", f"study.warm_start={before}"), None),
    ]

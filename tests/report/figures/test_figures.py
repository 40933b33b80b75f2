from __future__ import annotations

import copy
import itertools
import math
import subprocess
import sys
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from dropsearch.core.records import ARMS, Interval, Monitor, Site
from dropsearch.report import measured_values
from dropsearch.report.figures.axes import ceiling
from dropsearch.report.figures.differences import differences
from dropsearch.report.figures.effects import ensemble
from dropsearch.report.figures.landscape import budgets, responses
from dropsearch.report.figures.layout import FigureLayout, drawing
from dropsearch.report.figures.palette import ARM_STYLES, arm_style
from dropsearch.report.figures.registry import FIGURES, drawings, write_figures
from dropsearch.report.figures.search_trials import MOST_DOTS, best_so_far, rates, thinned
from dropsearch.report.figures.svg import inline
from dropsearch.stats.intervals import mean_interval

ALL = ("none", "dropout", "batchnorm", "both", "dropout_shared", "typical")
MANY = tuple(Site(f"encoder.layers.{i // 4}.sublayer{i % 4}.dropout", "hidden", 0.1, 8) for i in range(20))


def ruin(arm):
    """The arm with NaN and inf in its curves, and one trial without any."""

    def spoil(result, value):
        return replace(result, curve=(*result.curve[:3], replace(result.curve[3], val_loss=value, train_loss=value)))

    trials = (spoil(arm.trials[0], math.nan), spoil(arm.trials[1], math.inf), replace(arm.trials[2], curve=()))
    results = (spoil(arm.winner.results[0], math.inf), replace(arm.winner.results[1], curve=()))
    winner = replace(arm.winner, results=results + arm.winner.results[2:])
    return replace(arm, trials=trials + arm.trials[3:], winner=winner)


@pytest.fixture(scope="module")
def cases(make):
    """Summaries of every kind by name, with the number of figures that they have data for."""
    return list(_cases(make))


def _cases(make):
    yield "four arms", make.summary(), 5
    yield "six arms and twenty sites", make.with_evidence(ALL, sites=MANY), 12
    yield "one arm", make.with_evidence(("dropout",)), 10
    yield "no dropout", make.summary(("none", "batchnorm")), 3
    yield "nothing confirmed", make.summary({n: make.searched(n) for n in ("none", "both")}), 4
    yield "all failed", make.summary({n: make.failed(n) for n in ("none", "both")}), 3
    yield "no arm", make.summary({}), 2
    yield "not finite", make.summary({n: ruin(make.arm(n)) for n in ("none", "both")}), 5
    named = Monitor("val/mean_absolute_percentage_error_of_it", "max", "some units")
    long = replace(make.with_evidence(sites=MANY), monitor=named)
    yield "a long name", long, 12
    yield "one trial, one seed", make.with_evidence({n: make.arm(n, 1, 1, 1) for n in ("none", "both")}), 12
    yield "all seeds alike", make.tested(none=[0.9] * 3, dropout=[0.9] * 3), 5
    yield "no pair", make.tested(none=[0.9] * 3, dropout=[math.nan] * 3), 5


PIXELS = ("not finite", "one trial, one seed")
"""Of these every figure is drawn to its pixels, which takes seconds; of all others its words are looked at."""


@pytest.mark.slow
def test_every_figure_that_has_data_is_drawn_1200_pixels_wide(cases, tmp_path):
    for name, summary, count in cases:
        if name not in PIXELS:
            continue
        figures = write_figures(summary, tmp_path / name)
        assert (name, len(figures)) == (name, count)
        for figure in figures:
            with Image.open(figure.path) as image:
                assert image.size[0] == 1200


@pytest.mark.slow
def test_no_words_leave_a_figure_that_has_data_or_cover_each_other(cases):
    for name, summary, count in cases:
        drawn = [_misplaced_words(draw, summary) for _, draw in drawings()]
        found = {figure: words for (figure, _), words in zip(drawings(), drawn, strict=True) if words is not None}
        assert {figure: words for figure, words in found.items() if any(words)} == {}, name
        assert (name, len(found)) == (name, count)


def _misplaced_words(draw, summary):
    """Return the misplaced texts of a figure; None where it has no data."""
    with drawing():
        layout = draw(summary)
        if layout is None:
            return None
        layout.figure.draw_without_rendering()
        return _misplaced(layout.figure, layout)


def _misplaced(figure: Figure, layout: FigureLayout):
    """Texts that leave the figure or, beside title and caption, its drawing; and pairs of texts that overlap."""
    texts = [text for text in figure.findobj(mpl.text.Text) if text.get_visible() and text.get_text().strip()]
    hidden = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
        if not label.get_visible() or not _within(axis, tick)
    }
    boxes = {text: text.get_window_extent() for text in texts if text not in hidden}
    width, height = figure.bbox.width, figure.bbox.height
    above, below = (figure.dpi * margin for margin in layout.margins)
    outside = [
        t.get_text()
        for t, b in boxes.items()
        if b.x0 < -1
        or b.y0 < -1
        or b.x1 > width + 1
        or b.y1 > height + 1
        or (t not in layout.words and (b.y0 < below - 1 or b.y1 > height - above + 1))
    ]
    listed = list(boxes.items())
    overlaps = [
        (one.get_text(), other.get_text())
        for index, (one, box) in enumerate(listed)
        for other, beside in listed[index + 1 :]
        if box.padded(-1).overlaps(beside.padded(-1))
    ]
    return outside, overlaps


def _within(axis, tick):
    low, high = sorted(axis.get_view_interval())
    return low <= tick.get_loc() <= high


def test_a_figure_of_an_earlier_run_does_not_stay(make, tmp_path):
    for name, _ in drawings():
        (tmp_path / f"{name}.png").write_bytes(b"of an earlier run")
    write_figures(make.summary(("none",)), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"curves.png", "best_so_far.png"}


def test_each_figure_is_a_step(make, tmp_path, monkeypatch):
    drawn = [(name, lambda summary: None) for name, _ in drawings()]
    assert len(drawn) == FIGURES
    monkeypatch.setattr("dropsearch.report.figures.registry.drawings", lambda: iter(drawn))
    steps = []
    assert write_figures(make.summary(), tmp_path, lambda: steps.append(1)) == []
    assert len(steps) == FIGURES


@pytest.fixture
def one_figure(monkeypatch):
    """Write the first figure only."""
    monkeypatch.setattr("dropsearch.report.figures.registry.drawings", lambda: itertools.islice(drawings(), 1))


def test_the_callers_matplotlib_settings_are_unchanged(make, tmp_path, one_figure):
    with mpl.rc_context({"font.size": 17.0, "axes.grid": False}):
        before = dict(mpl.rcParams)
        write_figures(make.summary(("none", "dropout")), tmp_path)
        assert dict(mpl.rcParams) == before


def test_the_callers_matplotlib_settings_do_not_change_the_figures(make, tmp_path, one_figure):
    summary = make.summary(("none", "dropout"))
    (first,) = write_figures(summary, tmp_path / "plain")
    with mpl.rc_context({"font.size": 30.0, "savefig.dpi": 40}):
        (second,) = write_figures(summary, tmp_path / "styled")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.svg == second.svg


def test_importing_the_report_does_not_import_matplotlib():
    program = "import sys, dropsearch.report; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_arm_has_its_own_colour_and_marker():
    assert ARM_STYLES.keys() == ARMS.keys()
    assert len({arm_style(arm).colour for arm in ARMS}) == len({arm_style(arm).marker for arm in ARMS}) == len(ARMS)


def test_the_title_of_the_differences_says_what_was_found(make):
    def title(summary):
        return differences(summary).figure.texts[0].get_text()

    assert title(make.tested(none=[0.9] * 9, dropout=[0.9] * 9)) == "No difference in test accuracy could be shown"
    assert title(make.tested(none=[0.9, 0.91] * 4, dropout=[0.95, 0.97] * 4)) == (
        "The difference in test accuracy could be shown"
    )


def test_the_chosen_configuration_is_circled(make):
    arm = make.arm("dropout")
    # The winner's trial is read from the storage on its own, so it equals one of the trials and is another object.
    winner = replace(arm.winner, trial=copy.deepcopy(arm.trials[0]))
    drawn = rates(make.summary({"none": make.arm("none"), "dropout": replace(arm, winner=winner)}))
    for site, panel in zip(arm.trials[0].spec.rates, drawn.panels, strict=True):
        (circle,) = [line for line in panel.get_lines() if line.get_marker() == "o"]
        assert list(circle.get_xdata()) == [arm.trials[0].spec.rates[site]]


def test_many_trials_make_no_larger_figure(make):
    few, many = (make.summary({"dropout": make.arm("dropout", trials)}) for trials in (350, 2500))
    for draw in (rates, best_so_far):
        with drawing():
            of_few, of_many = (draw(each) for each in (few, many))
            sizes = [len(inline(each, "name")) for each in (of_few, of_many)]
        assert sizes[1] < min(1.1 * sizes[0], 60_000)
        assert "200 have a dot" in of_many.caption


def test_the_best_trials_have_a_dot_however_many_there_are(make):
    trials = [trial for trial in make.arm("dropout", 900).trials if trial.state == "COMPLETE"]
    drawn = thinned(trials)
    best = sorted(trials, key=lambda trial: trial.best.val_loss)[:50]
    assert len(drawn) == MOST_DOTS
    assert {trial.spec.number for trial in best} <= {trial.spec.number for trial in drawn}
    assert [trial.spec.number for trial in drawn] == sorted({trial.spec.number for trial in drawn})
    assert max(trial.spec.number for trial in drawn) > 880


def test_a_band_is_students_interval_epoch_by_epoch(make):
    results = make.arm("none").winner.results
    losses = np.array([[point.val_loss for point in result.curve] for result in results])
    low, high = stats.t.interval(0.95, 9, losses.mean(axis=0), stats.sem(losses))
    band = measured_values.curve_band(results, "val_loss")
    assert np.allclose([band.mean, band.low, band.high], [losses.mean(axis=0), low, high], rtol=1e-12)


def test_a_band_of_two_curves_is_their_range(make):
    results = make.arm("none").winner.results[:2]
    band = measured_values.curve_band(results, "train_loss")
    ends = [result.curve[-1].train_loss for result in results]
    assert (band.low[-1], band.high[-1]) == (min(ends), max(ends))


def test_a_band_leaves_out_what_is_not_finite(make):
    results = ruin(make.arm("none")).winner.results
    assert np.isfinite(measured_values.curve_band(results, "val_loss").mean).all()


def test_no_yardstick_of_an_average_lies_on_the_edge_of_its_panel(make):
    measured = make.with_evidence()
    # So far up the ensemble of `both` comes to lie in the margin below the other lines.
    moved = {
        name: replace(arm.series["nll_by_members"], values=tuple(tuple(y + 0.025 for y in row) for row in rows))
        for name, arm in measured.evidence.arms.items()
        if "nll_by_members" in arm.series and (rows := arm.series["nll_by_members"].values)
    }
    arms = {
        name: replace(arm, series=arm.series | ({"nll_by_members": moved[name]} if name in moved else {}))
        for name, arm in measured.evidence.arms.items()
    }
    for panel in ensemble(replace(measured, evidence=replace(measured.evidence, arms=arms))).panels:
        low, high = panel.get_ylim()
        assert len(panel.lines) == 4
        assert min(min(y - low, high - y) / (high - low) for line in panel.lines for y in line.get_ydata()) > 0.04


@pytest.mark.parametrize("values", [[0.9], [0.5] * 4, [0.91, 0.93, 0.9, 0.97]])
def test_report_and_evidence_agree_on_the_interval_of_a_mean(values):
    ours, comparison_metric = measured_values.mean_interval(values), mean_interval(values)
    assert (ours.mean, ours.low, ours.high) == pytest.approx(
        (comparison_metric.mean, comparison_metric.low, comparison_metric.high), nan_ok=True
    )


@pytest.mark.parametrize(
    ("losses", "top"), [([0.3, 0.31, 0.32, 0.33, 40.0], 0.33), ([0.3, 0.4, math.inf, math.nan], 0.4), ([2.0], 2.0)]
)
def test_an_outlier_does_not_stretch_the_axis(losses, top):
    assert ceiling(losses) == top


def test_ticks_of_differences_do_not_overlap(make):
    summary = make.tested(none=[0.9, 0.91], dropout=[0.9, 0.91])
    (found,) = summary.comparisons
    far = replace(found, difference=Interval(-0.00182, math.nan, math.nan), differences=(-0.00197, -0.00167))
    metric = replace(summary.comparison_metric, percent=False)
    with drawing():
        drawn = differences(replace(summary, comparisons=(far,), comparison_metric=metric))
        labels = drawn.panels[0].get_xticklabels()
        boxes = [label.get_window_extent(FigureCanvasAgg(drawn.figure).get_renderer()) for label in labels]
    assert len(boxes) > 2
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


@pytest.mark.parametrize("draw", [best_so_far, rates])
@pytest.mark.parametrize("shift", [0.0, -0.3, -0.9])
def test_every_trial_is_within_the_axis_or_a_triangle(make, draw, shift):
    """Scores to maximize are negative where they are minimized, and may have both signs."""

    def shifted(trial):
        return replace(trial, curve=tuple(replace(point, val_loss=point.val_loss + shift) for point in trial.curve))

    arm = make.arm("dropout")
    arm = replace(arm, monitor=Monitor("val_r2", "max"), trials=tuple(map(shifted, arm.trials)))
    panel = draw(make.summary({"dropout": arm}, monitor=arm.monitor)).panels[0]
    low, high = sorted(panel.get_ylim())
    drawn = [y for line in panel.lines for y in line.get_ydata() if line.get_transform() == panel.transData]
    assert len(drawn) >= sum(trial.state == "COMPLETE" for trial in arm.trials) - 1
    assert all(low <= y <= high for y in drawn)


@pytest.mark.parametrize("draw", [best_so_far, rates, responses, budgets])
def test_a_metric_to_maximize_is_drawn_as_it_is_logged_with_the_best_on_top(make, draw):
    summary = make.with_evidence()
    monitor = Monitor("val_r2", "max")
    arms = {name: replace(arm, monitor=monitor) for name, arm in summary.arms.items()}
    drawn = draw(replace(summary, monitor=monitor, arms=arms))
    words = " ".join([drawn.title, drawn.caption, *(panel.get_ylabel() for panel in drawn.panels)])
    assert "val_r2" in words
    assert "\N{MINUS SIGN}val_r2" not in words
    for panel in drawn.panels:
        assert panel.yaxis_inverted()
        assert panel.yaxis.get_major_formatter()(-0.25, 0) == "0.25"
        assert panel.yaxis.get_major_formatter()(0.0, 0) == "0"


def test_the_best_of_a_metric_to_maximize_stands_in_the_legend_as_it_is_logged(make):
    summary = make.summary(("none",))
    arm = replace(summary.arms["none"], monitor=Monitor("val_r2", "max"))
    drawn = best_so_far(replace(summary, arms={"none": arm}, monitor=arm.monitor))
    texts = [text.get_text() for legend in drawn.figure.legends for text in legend.get_texts()]
    assert texts == [f"none {-arm.best.best.objective:.4f}"]

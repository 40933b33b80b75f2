from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropsearch.core.records import Claim, ComparisonMetric, Confirmed, Interval, Monitor, Site
from dropsearch.report.markdown import markdown
from dropsearch.report.numbers import EMPTY, Scale, in_brackets, loss, points, probability, rate, short, shorten
from dropsearch.report.tables.arms import arms_table, differences_table, params_table, rates_table, tables
from dropsearch.report.tables.evidence import claim_number, claims_table, contrasts_table
from dropsearch.report.tables.table import Table
from dropsearch.report.terminal import closing
from dropsearch.report.text.contents import settings
from dropsearch.report.text.contrast_phrases import of_different_models
from dropsearch.report.text.phrases import question
from tests.report.text.test_verdict import with_losses

ALL = ("none", "dropout", "batchnorm", "both", "dropout_shared", "typical")


def cells(table, row):
    return dict(zip(table.columns, row, strict=True))


def test_an_arm_has_one_row_with_its_numbers(make):
    summary = make.tested(none=[0.9, 0.9, 0.9], dropout=[0.95, 0.96, 0.97])
    table = arms_table(summary)
    row = cells(table, table.rows[1])
    assert [r[0] for r in table.rows] == ["none", "dropout"]
    assert row["done/pruned/\nfailed"] == "10/2/0"
    assert row["test accuracy\nmean (95 % over seeds)"] == "96.00 (93.52 to 98.48)"


def test_a_monitored_accuracy_is_not_called_one_in_percent(make):
    """The module logs 0.96, which is shown as it is, beside the test accuracy of 96 %."""
    assert arms_table(make.summary()).title == "Arms: losses in nats, accuracy in %"
    found = arms_table(make.summary(monitor=Monitor("val_acc", "max")))
    assert found.title == "Arms: losses in nats, test accuracy in %, val_acc as logged"


def test_the_luck_of_the_search_is_not_called_a_gap_which_is_that_of_overfitting(make):
    for table in (
        arms_table(make.summary()),
        arms_table(replace(make.summary(), comparison_metric=ComparisonMetric("f1", "val_loss", "f1", percent=False))),
    ):
        columns = [column.replace("\n", " ") for column in table.columns]
        assert "search luck" in columns
        assert not [column for column in columns if "gap" in column]


def test_an_arm_without_results_has_dashes(make):
    table = arms_table(make.summary({"none": make.failed("none")}))
    assert table.rows == (("none", "0/0/12", "-", "-", "-", "-", "-", "-"),)


def test_seeds_without_a_score_are_counted(make):
    (row,) = arms_table(make.tested(none=[0.9, math.nan, 0.8])).rows
    assert row[-1] == "2/3"


def test_a_winner_that_diverged_says_so(make):
    arm = make.arm("none")
    ruined = tuple(replace(result, curve=()) for result in arm.winner.results)
    table = arms_table(make.summary({"none": replace(arm, winner=replace(arm.winner, results=ruined))}))
    assert cells(table, table.rows[0])["confirmed\nval loss"] == "diverged"


def test_rates_found_stand_beside_the_typical_ones(make):
    summary = make.summary(ALL)
    table = rates_table(summary)
    assert table.columns == ("site", "kind", "typical", "in dropout", "in both", "in dropout_shared")
    for site, row in zip(summary.sites, table.rows, strict=True):
        winner = summary.arms["both"].winner.results[0].spec.rates
        assert cells(table, row)["in both"] == f"{winner[site.name]:.2f}"
        assert cells(table, row)["typical"] == f"{summary.arms['both'].typical[site.name]:.2f}"


def test_a_site_that_cannot_be_controlled_is_fixed(make):
    sites = (Site("lstm", "rnn", 0.2, 10, controllable=False, reason="inside a fused kernel"),)
    arm = make.arm("dropout", sites=(Site("head", "hidden", 0.1, 10),))
    rows = rates_table(make.summary({"dropout": arm}, sites=sites)).rows
    assert [row[0] for row in rows] == ["lstm", "head"]
    assert rows[0][-1] == "fixed"


def test_arms_without_dropout_have_no_table_of_rates(make):
    assert rates_table(make.summary(("none", "batchnorm"))).rows == ()


def test_other_parameters_have_their_own_table(make):
    assert params_table(make.summary(ALL)).rows == ()
    found = {"model.hidden": [64, 64], "optimizer.momentum": 0.94321, "model.activation": "relu"}
    arm = make.arm("dropout")
    first, *rest = arm.winner.results
    results = (replace(first, spec=replace(first.spec, hyperparameters=found)), *rest)
    summary = make.summary({"none": make.arm("none"), "dropout": replace(arm, winner=Confirmed(0, results))})
    table = params_table(summary)
    assert table.columns == ("key", "in none", "in dropout")
    assert [row[1:] for row in table.rows] == [("-", "[64,64]"), ("-", "0.9432"), ("-", "relu")]
    assert table.trimmed() in tables(summary)
    assert table.trimmed().columns == ("key", "in dropout")


def test_differences_are_in_percentage_points(make):
    table = differences_table(make.tested(none=[0.90, 0.91, 0.92] * 3, dropout=[0.93, 0.94, 0.95] * 3))
    row = cells(table, table.rows[0])
    assert (row["contrast"], row["difference"], row["seeds"]) == ("dropout - none", "+3.00", "9")
    assert (row["P(a > b)"], row["p Holm"], row["shown"]) == ("1.00", "0.0039", "yes")


def test_a_contrast_without_pairs_has_dashes(make):
    (row,) = differences_table(make.tested(none=[0.9] * 3, dropout=[math.nan] * 3)).rows
    assert row[1:4] == ("-", "-", "-")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "+1.23"), (-0.0123, "-1.23"), (-0.00001, "0.00"), (0.0, "0.00"), (math.nan, "-")]
)
def test_points_carry_their_sign_and_zero_has_none(value, text):
    assert points(value) == text


P_VALUES = [
    (0.05, "0.05"),
    (0.0499, "0.0499"),
    (0.04996, "0.04996"),
    (0.0501, "0.05"),
    (0.01171875, "0.012"),
    (0.082, "0.082"),
    (0.00001, "<0.001"),
    (1.0, "1"),
]


@pytest.mark.parametrize(("value", "text"), P_VALUES)
def test_p_has_two_digits_and_stays_on_its_side(value, text):
    assert probability(value) == text


@given(st.text(max_size=60), st.integers(8, 40))
def test_a_shortened_name_fits_and_keeps_its_end(text, size):
    short = shorten(text, size)
    assert len(short) <= size
    assert short == text or (short.startswith(text[:2]) and short.endswith(text[-4:]))


def test_terminal_and_page_show_the_same_cells(summary):
    table = differences_table(summary)
    text, markdown = table.as_text(width=100), table.as_markdown()
    assert all(cell in text and cell in markdown for row in table.rows for cell in row)


def test_columns_are_aligned(summary):
    lines = arms_table(summary).as_text().splitlines()
    ends = [index for index, mark in enumerate(lines[3]) if lines[3][index : index + 2] == "- "]
    assert all(line[end + 1 : end + 3].strip() == "" for line in lines[1:] for end in ends)


def test_a_cell_cannot_break_a_markdown_table():
    table = Table("t", ("a",), (("x|y",),))
    assert table.as_markdown().splitlines()[-1] == "| x\\|y |"


def test_tables_fit_the_terminal_whatever_the_names(make):
    long = tuple(Site(f"encoder.layers.{i}.{'block.' * 12}dropout", "attention", 0.1, 8) for i in range(3))
    text = closing(make.summary(ALL, sites=long))
    assert max(len(line) for line in text.splitlines() if not line.startswith("  ")) <= 80


def test_rows_and_columns_without_content_are_left_out():
    table = Table("t", ("name", "a", "b"), (("x", "1", "-"), ("y", "-", "-")), left=("name",))
    assert table.trimmed() == Table("t", ("name", "a"), (("x", "1"),), left=("name",))
    full = Table("t", ("name", "a"), (("x", "0"),), left=("name",))
    assert full.trimmed() == full


def test_an_accuracy_in_per_cent_is_shown_as_the_module_logs_it(make):
    metric = ComparisonMetric("test_loss", "test_loss", "test loss", percent=False, higher_is_better=False)
    table = arms_table(replace(make.tested(none=[37.5, 37.5, 37.5]), comparison_metric=metric))
    assert cells(table, table.rows[0])["test\naccuracy"] == "37.5"


def test_a_mean_of_one_seed_has_no_title_of_an_interval(make):
    assert "test accuracy\nmean" in arms_table(make.tested(none=[0.9], dropout=[0.95])).columns


def test_differences_from_the_same_model_are_not_repeated(make):
    summary = make.with_evidence()
    contrasts = {(each.a, each.b) for each in of_different_models(summary, summary.contrasts)}
    assert len(contrasts) == 6
    none = summary.arms["none"]
    dropout = replace(summary.arms["dropout"], winner=replace(none.winner, owner="none"))
    same = replace(summary, arms={**summary.arms, "dropout": dropout})
    left = {(each.a, each.b) for each in of_different_models(same, same.contrasts)}
    assert left == {pair for pair in contrasts if "dropout" not in pair}
    assert len(differences_table(same).rows) == 3
    assert not any("dropout" in row[1] for row in contrasts_table(same).rows)


def test_the_only_difference_of_two_models_stays_whatever_arms_have_them(make):
    summary = make.with_evidence()
    first = summary.comparisons[0]
    pairs = [("dropout", "none"), ("dropout", "both"), ("both", "none")]
    dropout = replace(summary.arms["dropout"], winner=replace(summary.arms["none"].winner, owner="none"))
    twins = replace(summary, arms={**summary.arms, "dropout": dropout})
    for planned, left in ((pairs[:2], pairs[1:2]), (pairs, pairs[1:2]), (pairs[:1], [])):
        found = of_different_models(twins, [replace(first, a=a, b=b) for a, b in planned])
        assert [(each.a, each.b) for each in found] == left


def claimed(answer, mean, low=math.nan, high=math.nan):
    return Claim("rates", "Typical rates do", answer, "share, dropout", Interval(mean, low, high), "Because.")


def test_no_table_has_a_row_of_dashes(make):
    measured = make.with_evidence()
    claims = (*measured.evidence.claims, claimed("not measured", math.nan), claimed("not measured", 0.25))
    summary = replace(measured, evidence=replace(measured.evidence, claims=claims))
    rows = [row for table in tables(summary) for row in table.rows]
    assert len(rows) > 10
    assert not [row for row in rows if EMPTY in row[-2:] or not any(each.strip("- ") for each in row[1:])]
    assert [row[-1] for row in claims_table(summary).rows] == ["-0.07 (-0.09 to -0.05) nats", "0.25"]
    assert markdown(summary).count("**not measured**") == 2


@pytest.mark.parametrize(
    ("claim", "text"),
    [
        (claimed("not measured", 0.0), "0"),
        (claimed("not measured", 0.5), "0.5"),
        (claimed("undecided", 0.0), "0"),
        (claimed("undecided", 0.0, -0.01, 0.02), "0 (-0.01 to +0.02)"),
        (claimed("held", 0.5, 0.25, 0.75), "+0.5 (+0.25 to +0.75)"),
    ],
)
def test_a_share_has_no_sign_and_zero_has_none(claim, text):
    assert claim_number(claim) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (loss(0.0, sign=True), "0.0000"),
        (loss(-0.0), "0.0000"),
        (loss(0.25, sign=True), "+0.2500"),
        (points(0.00004), "0.00"),
    ],
)
def test_what_rounds_to_nothing_has_no_sign(text, shown):
    assert text == shown


def test_a_short_interval_has_the_decimals_that_show_it():
    """A difference of a few of a million test examples may be shown."""
    scale, difference = Scale(ComparisonMetric()), Interval(3.2e-5, 1.1e-5, 5.4e-5)
    assert scale.sizes(difference) == ["0.0032", "0.0011", "0.0054"]
    assert scale.differences(difference) == ["+0.0032", "+0.0011", "+0.0054"]
    assert scale.differences(Interval(0.012, -0.004, 0.03)) == ["+1.20", "-0.40", "+3.00"]
    assert scale.differences(Interval(0.5, 0.5, 0.5)) == ["+50.00"] * 3
    assert scale.differences(Interval(4e-5, 4e-5, 4e-5)) == ["+0.0040"] * 3
    assert scale.differences(Interval(1e-17, 0.0, 2e-17)) == ["0.00"] * 3


def test_the_figure_of_differences_has_the_rows_of_the_table(make):
    from dropsearch.report.figures.differences import differences

    summary = make.with_evidence()
    same = replace(summary.arms["dropout"], winner=replace(summary.arms["none"].winner, owner="none"))
    twins = replace(summary, arms={**summary.arms, "dropout": same})
    drawn = differences(twins)
    assert drawn is not None
    labels = [label.get_text() for label in drawn.panels[0].get_yticklabels()]
    assert [label.replace("\N{MINUS SIGN}", "-") for label in labels] == [r[0] for r in differences_table(twins).rows]
    alone = replace(
        twins, arms={name: twins.arms[name] for name in ("none", "dropout")}, comparisons=twins.contrasts[:1]
    )
    assert differences(alone) is not None  # one model in two arms


def test_the_configuration_shows_retraining_only_where_it_is_the_task():
    config = {"task": "search", "seed": 0, "retrain": {"arm": "", "lr": 0.001}}
    assert settings(config) == ["seed=0", "task=search"]
    assert "retrain.lr=0.001" in settings({**config, "task": "retrain"})


@pytest.mark.parametrize(("model", "is_read"), [({"optimizer": "${optimizer}"}, True), ({"lr": 0.1}, False)])
def test_the_configuration_shows_an_optimizer_only_where_the_model_takes_it(model, is_read):
    """A module of the user makes its own."""
    assert ("optimizer.name=adamw" in settings({"optimizer": {"name": "adamw"}, "model": model})) is is_read


@pytest.mark.parametrize("scale", [1e-9, 1e-5, 1.0, 1e3, 1e7])
def test_the_tables_of_the_first_screen_fit_for_scores_of_any_size(make, scale):
    scores = {"none": [0.561, 0.553, 0.571, 0.566], "dropout_shared": [0.612, 0.634, 0.598, 0.641]}
    metric = ComparisonMetric("test_loss", "test_loss", "test loss", percent=False, higher_is_better=False)
    arms = {}
    for name, values in scores.items():
        arm = with_losses(make, name, [scale * value for value in values])
        arms[name] = replace(arm, test=replace(arm.test, loss=tuple(scale * value for value in values)))
    text = closing(make.summary(arms, comparison_metric=metric, config={"output_dir": "o"}))
    assert max(map(len, text.splitlines())) <= 80
    assert "0.0000" not in text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (("5.61e-10", "5.40e-10", "5.83e-10"), "5.61 (5.40 to 5.83)e-10"),
        (("9.8e-10", "9.1e-10", "1.1e-09"), "9.8e-10 (9.1e-10 to 1.1e-09)"),
        (("0.56", "0.54", "0.58"), "0.56 (0.54 to 0.58)"),
    ],
)
def test_a_number_and_its_interval_share_their_power_of_ten(values, text):
    assert in_brackets(*values) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.25, "0.2500"), (5.59e-10, "5.59e-10"), (5589676.68, "5.5897e+06"), (123.456, "123.46")]
)
def test_a_score_in_progress_is_short_and_never_zero(value, text):
    assert short(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0, "0.00"), (0.004, "0.004"), (0.00001, "1e-05"), (0.005, "0.01")])
def test_a_small_rate_is_not_zero(value, text):
    assert rate(value) == text


@pytest.mark.parametrize(
    ("arms", "text"),
    [
        (ALL[:4], "which dropout rates, and is BatchNorm better, or both"),
        (("none", "dropout"), "which dropout rates"),
        (("none", "dropout", "batchnorm"), "which dropout rates, and is BatchNorm better"),
        (("batchnorm", "both"), "which dropout rates, and is BatchNorm better, or both"),
        (("none", "typical", "batchnorm"), "plain, dropout at typical rates or BatchNorm"),
        (("typical",), "how good is dropout at typical rates"),
    ],
)
def test_the_question_of_a_run_is_that_of_its_arms(arms, text):
    assert question(arms) == text

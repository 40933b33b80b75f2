from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dropsearch.core.records import Claim, Interval, Site
from dropsearch.report.figures.registry import Figure
from dropsearch.report.html.page import page
from dropsearch.report.markdown import markdown, write_markdown
from dropsearch.report.tables.evidence import claims_table, contrasts_table
from dropsearch.report.tables.table import Table
from dropsearch.report.terminal import closing
from dropsearch.report.text.caveats import caveats
from dropsearch.report.text.contents import duration, facts
from dropsearch.report.text.escaping import block, code, escaped
from dropsearch.report.text.shell import folded
from dropsearch.report.text.verdict import answer
from dropsearch.report.text.warnings import warnings


def test_the_verdict_comes_first(summary):
    assert markdown(summary).split("\n\n")[1:4] == [escaped(sentence) for sentence in answer(summary)]


def test_figures_are_linked_relative_to_the_markdown(summary, tmp_path):
    figures = [Figure("curves", tmp_path / "run" / "figures" / "curves.png", "Curves", "", "")]
    path = write_markdown(summary, tmp_path / "run" / "report.md", figures)
    assert "![Curves](<figures/curves.png>)" in path.read_text(encoding="utf-8")
    assert str(tmp_path) not in path.read_text(encoding="utf-8")


def test_what_was_run_can_be_read_off(summary):
    text = markdown(summary)
    for part in ("study.n_trials=12", "torch 2.13.0", "5000, 5001", "120 retrainings", "mlflow ui", "2 min 05 s"):
        assert part in text


def test_a_run_without_anything_still_has_a_page(make):
    text = markdown(make.summary({}, config={}, commands={}, versions={}, tracking={}))
    assert "The numbers raise none." in text
    assert "## Commands" not in text


def test_the_noise_of_a_test_accuracy_follows_from_the_number_of_examples(make):
    text = " ".join(caveats(make.tested(none=[0.9, 0.9]), test_examples=360))
    assert f"standard error of {100 * math.sqrt(0.9 * 0.1 / 360):.2f} points" in text


def test_without_the_number_of_examples_no_noise_is_claimed(summary):
    assert "standard error" not in " ".join(caveats(summary))


def test_the_luck_of_the_search_is_a_caveat(summary):
    assert any(line.startswith("Search scores flatter") for line in caveats(summary))


def test_unequal_chances_and_failures_are_caveats(make):
    arms = {"none": make.arm("none"), "both": make.failed("both", trials=5)}
    text = "\n".join(caveats(make.summary(arms)))
    assert "plain 12, dropout + BatchNorm 5" in text
    assert "Trials failed: dropout + BatchNorm 5 of 5; most often with: `CUDA out of memory`" in text


def test_seeds_without_a_score_stand_in_the_first_screen(make):
    summary = make.tested(none=[0.9, math.nan, 0.8])
    assert "no finite test score are left out: plain 1 of 3." in " ".join(warnings(summary))
    assert ", 2 of 3 fresh seeds, one split." in answer(summary)[0]


def test_claims_come_with_what_they_do_not_say(make):
    confounded = (
        "Claims compare tuned configurations: each arm's winner has a learning rate and a weight decay of its own"
    )
    unadjusted = "P-values of claims are adjusted for the contrasts of one measure, not for there being 2 claims."
    for text in (markdown(make.with_evidence()), page(make.with_evidence())):
        assert confounded.replace("'", "&#39;" if text.startswith("<!") else "'") in text
        assert unadjusted in text
    assert "claims" not in markdown(make.summary()).lower()


def with_winner(make, name, number, rates):
    """An arm whose winner is the trial of this number, with these rates."""
    arm = make.arm(name)
    results = [replace(result, spec=replace(result.spec, rates=rates)) for result in arm.winner.results]
    return replace(arm, winner=replace(arm.winner, number=number, results=tuple(results)))


@pytest.mark.parametrize(("number", "rate", "same"), [(7, 0.2, True), (8, 0.2, False), (7, 0.3, False)])
def test_one_proposal_that_won_in_two_arms_is_a_caveat(make, number, rate, same):
    arms = {
        "dropout": with_winner(make, "dropout", 7, {"input_dropout": 0.2}),
        "both": with_winner(make, "both", number, {"input_dropout": rate}),
    }
    told = "winners of dropout and dropout + BatchNorm are the same proposal: trial 7 of both, with the same rates."
    assert (told in markdown(make.summary(arms))) is same


def test_rates_of_zero_are_no_finding_that_two_arms_could_share(make):
    arms = {name: with_winner(make, name, 1, {"input_dropout": 0.0}) for name in ("dropout", "both")}
    assert "same proposal" not in markdown(make.summary(arms))


def test_a_site_out_of_control_is_a_caveat(make):
    site = Site("lstm", "rnn", 0.2, 10, controllable=False, reason="inside a fused kernel")
    text = " ".join(caveats(replace(make.summary(("none",)), sites=(site,))))
    assert "The site lstm kept its own rate of 0.20: inside a fused kernel." in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (48, "48 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (12000, "3 h 20 min")]
)
def test_a_duration_reads_as_people_say_it(seconds, text):
    assert duration(seconds) == text


def test_the_end_shows_the_answer_then_tables_then_commands(summary):
    text = closing(summary)
    positions = [text.index(part) for part in ("Use dropout + BatchNorm", "Arms:", "Dropout rates", "mlflow ui")]
    assert positions == sorted(positions)
    assert "Paired" not in text


def test_commands_are_folded_and_continuing_comes_last(make):
    command = "python -m dropsearch " + " ".join(f"key{i}=value" for i in range(30))
    text = closing(make.summary(commands={"continue": command, "mlflow": "mlflow ui"}))
    assert text.endswith(folded(command, 80))
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (None, "with a larger study.n_trials:"),
        ("5m", "for another 5m:"),
        ("500 trials", "with a larger budget:"),
    ],
)
def test_a_study_is_continued_as_its_budget_allows(make, budget: str | None, expected: str) -> None:
    config = {"study": {"n_trials": 12}, "confirm": {"seeds": 10, "top_k": 3}, "seed": 0, "budget": budget}
    summary = make.summary(commands={"continue": "python -m dropsearch"}, config=config)
    assert f"Repeat the command to continue it here {expected}\n  python -m dropsearch" in closing(summary)
    assert f"To reproduce this run in a new folder, or to continue it here {expected}" in markdown(summary)


def test_the_terminal_needs_no_unicode(make):
    text = closing(make.summary(("none", "dropout", "both")))
    assert text.isascii()
    assert "\x1b" not in text


READER = MarkdownIt("gfm-like", {"linkify": False})
"""An independent reader of GitHub's Markdown."""
# Invisible characters are shown as escapes: tests/report/text/test_hostile_names.py.
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Zl", "Zp"]), max_size=20).map(
    lambda text: " ".join(text.split())
) | st.sampled_from(["a|b", "\\|", "`|`", "``", "<b>x</b>", "*x*", "_x_", "[x](y)", "&amp;", "~~x~~", "<!--", "\\"])


def shown(text, kind):
    """What a reader sees of the inline parts of a document, table cell by table cell."""
    inline = [token for token in READER.parse(text) if token.type == "inline"]
    return ["".join(child.content for child in token.children or () if child.type in kind) for token in inline]


@given(cells=st.lists(st.tuples(words, words), min_size=1, max_size=3))
def test_no_cell_can_break_a_table_or_become_markup(cells):
    table = Table("t", ("one", "two"), tuple(cells), left=("one",))
    seen = shown(table.as_markdown(), ("text", "text_special"))
    assert seen[1:] == ["one", "two", *(cell for row in cells for cell in row)]


@given(text=words)
@example(text="__0__")
def test_a_sentence_shows_every_character(text):
    (seen,) = shown(f"x {escaped(text)} x", ("text", "text_special"))
    assert " ".join(seen.split()) == " ".join(f"x {text} x".split())


@given(text=words.filter(bool))
def test_code_shows_every_character_backticks_too(text):
    assert shown(f"x {code(text)}", ("code_inline",)) == [text]
    (token,) = READER.parse(block(text))
    assert (token.type, token.content) == ("fence", f"{text}\n")


def test_measures_and_claims_are_summarized(make):
    text = markdown(make.with_evidence())
    assert "- Less overfitting with dropout: **yes**. With dropout the gap is 0.07 nats smaller" in text
    assert "| gap at the best epoch (nats) | 0.118 | 0.0558 | 0.125 | 0.0513 |" in text
    assert "what dropout did in the winners was measured in 4.2 s (3 % of the run)" in text
    assert "## Evidence" not in markdown(make.summary())


def test_what_earlier_commands_trained_is_not_said_to_be_done_in_the_last_one(make):
    summary = make.with_evidence(trained_before=5, seconds=7)
    found = dict(facts(summary))
    assert found["trained"].endswith(
        "retrainings, those of earlier commands and other processes included; this one took 7 s"
    )
    assert found["evidence"].endswith("measured in 4.2 s")


def test_the_markdown_has_every_contrast(make):
    measured = make.with_evidence()
    assert contrasts_table(measured).as_markdown() in markdown(measured)


def test_the_markdown_names_the_whole_measure_of_a_claim_with_its_unit(make):
    text = markdown(make.with_evidence())
    assert "| Less overfitting with dropout | yes | gap | dropout minus none | -0.07 (-0.09 to -0.05) nats |" in text
    assert "| More robustness to noise" not in text  # it has no number
    assert "- More robustness to noise with dropout: **undecided**" in text


def test_an_accuracy_difference_is_in_points(make):
    measured = make.with_evidence()
    arms = "both minus the better of dropout and batchnorm"
    number = Interval(-0.0123, -0.0234, -0.0012)
    claim = Claim("batchnorm", "B.", "undecided", f"test accuracy, {arms}", number, "R.", "", "points", 100)
    summary = replace(measured, evidence=replace(measured.evidence, claims=(claim,)))
    assert f"| test accuracy | {arms} | -1.23 (-2.34 to -0.12) points |" in markdown(summary)
    assert "-1.23 (-2.34 to -0.12) points" in claims_table(summary).as_text()


def test_the_terminal_names_the_report_and_leaves_the_claims_to_it(make):
    text = closing(make.with_evidence(config={"output_dir": "outputs/here"}))
    assert "overfitting" not in text
    assert "In outputs/here: report.html" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("  ")) <= 80

"""The page as browsers read it: parsed again, and looked at for what must and must not be there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropsearch.core.records import ComparisonMetric, Monitor, Site
from dropsearch.report.figures.registry import drawings, write_figures
from dropsearch.report.html.page import _sections, page, write_page
from dropsearch.report.tables.evidence import claim_answer
from dropsearch.report.text.verdict import answer

VOID = {"meta", "wbr", "br"}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;</style></svg>]]>--><!--`|`{{7*7}}"


@dataclass
class Parsed(HTMLParser):
    """The elements of a page, in order, and its text; an end tag without its start is an error."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self):
        return " ".join("".join(self.text).split())


def read(html):
    parsed = Parsed()
    parsed.feed(html)
    parsed.close()
    assert parsed.open == []
    return parsed


@pytest.fixture(scope="module")
def measured(make):
    return make.with_evidence()


@pytest.fixture(scope="module")
def figures(measured, tmp_path_factory):
    return write_figures(measured, tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="module")
def parsed(measured, figures):
    return read(page(measured, figures, 360))


def test_the_answer_comes_first_then_the_arms_and_so_on(measured, parsed):
    assert parsed.words.index(answer(measured)[0]) < parsed.words.index("Arms: losses in nats")
    order = [attributes["id"] for attributes in parsed.all("section")]
    assert order == ["arms", "rates", "curves", "evidence", "claims", "run", "caveats"]


def test_the_page_needs_nothing_but_itself(parsed, measured, figures):
    assert not {tag for tag, _ in parsed.elements} & {"link", "iframe", "object", "embed", "img", "image"}
    assert parsed.all("script") == [{}]
    links = [
        value for _, attributes in parsed.elements for name, value in attributes.items() if name in ("href", "src")
    ]
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"url\((?!#)|@import|@font-face|https?://(?!www\.w3\.org)", page(measured, figures))


def test_every_link_leads_somewhere_and_no_id_is_there_twice(parsed):
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, attributes in parsed.elements for name, value in attributes.items() if name == "href"}
    clips = {a["clip-path"][5:-1] for _, a in parsed.elements if a.get("clip-path", "").startswith("url(#")}
    labels = {a["aria-labelledby"] for _, a in parsed.elements if "aria-labelledby" in a}
    assert targets | clips | labels <= set(ids)
    assert clips
    assert labels


def test_every_figure_stands_there_with_its_title(parsed, figures):
    assert {attributes["aria-label"] for attributes in parsed.all("svg")} == {figure.title for figure in figures}
    assert len(parsed.all("figure")) == len(parsed.all("figcaption")) == len(figures) == 12


def test_every_table_has_a_caption_and_cells_have_headers(parsed):
    assert len(parsed.all("caption")) == len(parsed.all("table")) == 5
    assert {attributes["scope"] for attributes in parsed.all("th")} == {"col", "row"}


def test_colours_that_depend_on_the_background_are_left_to_the_page(parsed):
    styles = " ".join(attributes.get("style") or "" for _, attributes in parsed.elements)
    assert not re.search("#000000|#ffffff|black|white|DejaVu", styles)
    assert "var(--ink)" in styles
    assert "#0072b2" in styles


def test_the_text_of_a_figure_can_be_selected(parsed):
    assert "number of masks averaged" in parsed.words
    assert "share of hidden units replaced by their mean" in parsed.words


def test_claims_are_answered_with_reason_and_number(measured, parsed):
    for claim in measured.evidence.claims:
        assert f"{claim.statement}: {claim_answer(claim)} {claim.reason}" in parsed.words
    assert "-0.07 (-0.09 to -0.05) nats (figure)" in parsed.words
    assert "nan" not in parsed.words


def test_what_was_run_can_be_read_off(parsed):
    for part in (
        "study.n_trials=12",
        "torch 2.13.0",
        "5000, 5001",
        "120 retrainings",
        "mlflow ui",
        "4.2 s (3 % of the run)",
    ):
        assert part in parsed.words


def test_what_was_not_measured_is_a_caveat(parsed):
    assert "Variance_shift was not measured on 2 of 40 models: the network has no BatchNorm." in parsed.words


def test_the_file_is_far_below_three_megabytes(measured, figures, tmp_path):
    path = write_page(measured, tmp_path / "report.html", figures)
    assert 200_000 < path.stat().st_size < 1_000_000


def bare(make):
    outcome = make.arm("dropout")
    logged = ComparisonMetric("val_f1", "val_loss", "validation F1", percent=False, higher_is_better=True)
    yield "nothing measured", make.summary()
    yield "one arm", make.with_evidence(("dropout",))
    yield "no arm", make.summary({}, config={}, commands={}, versions={}, tracking={})
    yield "all failed", make.summary({name: make.failed(name) for name in ("none", "both")})
    yield "one failed", make.with_evidence({"none": make.arm("none"), "both": make.failed("both")})
    yield (
        "foreign",
        make.with_evidence({"dropout": outcome}, comparison_metric=logged, monitor=Monitor("val_f1", "max")),
    )
    yield "interrupted", make.summary({"none": make.searched("none")}, complete=False)


def test_a_run_that_lacks_things_has_a_page_without_them(make):
    for name, summary in bare(make):
        parsed = read(page(summary))
        sections = [attributes["id"] for attributes in parsed.all("section")]
        assert ("evidence" in sections) is (summary.evidence is not None), name
        assert sections[-2:] == ["run", "caveats"], name
        assert all(sentence in parsed.words for sentence in answer(summary)), name


words = st.text(st.characters(codec="utf-16", exclude_characters="\r"), max_size=30) | st.just(HOSTILE)


def skeleton(parsed):
    """The page without its words: what a name must not change."""
    return [
        (tag, sorted(name for name in attributes if name != "style"))
        for tag, attributes in parsed.elements
        if tag not in ("wbr", "code")
    ]


def named(make, study, site, reason, path, claim):
    """A summary in which everything that users and other people's code name has these names."""
    sites = (Site(f"a{site}", "hidden", 0.1, 8),)
    measured = make.with_evidence({"dropout": make.arm("dropout", 4, 1, 2, sites)}, sites)
    claims = tuple(replace(c, statement=claim, reason=claim, measure=claim) for c in measured.evidence.claims)
    return replace(
        measured,
        study=study,
        model=study,
        arms={"none": make.failed("none", reason or "x"), **measured.arms},
        config={"output_dir": path, "key": {"": path}},
        commands={"continue": path},
        notes=(f"note {reason}",),
        evidence=replace(measured.evidence, claims=claims),
    )


@pytest.fixture(scope="module")
def plain(make):
    return read(page(named(make, "study", "site", "reason", "path", "claim")))


@given(study=words, site=words, reason=words, path=words, claim=words)
def test_no_name_can_become_markup(make, plain, study, site, reason, path, claim):
    shown = read(page(named(make, study, site, reason, path, claim)))
    # Only code between backticks may come and go with the words.
    assert skeleton(shown) == skeleton(plain)


@pytest.mark.slow
def test_hostile_names_in_figures_stay_words(make, tmp_path):
    sites = (
        Site(HOSTILE, "hidden", 0.1, 8),
        Site("名前.dropout\x00\x1b", "hidden", 0.1, 8),
        Site("$x^2$", "conv", 0.1, 8),
    )
    summary = make.with_evidence(("dropout", "both"), sites)
    parsed = read(page(summary, write_figures(summary, tmp_path)))
    assert parsed.all("script") == [{}]
    assert parsed.all("img") == []
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    assert "$x^2$" in parsed.words
    assert "名前.dropout" in parsed.words
    assert "\x1b" not in page(summary)


def test_every_figure_has_a_section(measured):
    drawn = {name for section in _sections(measured) for name in section.figures}
    assert drawn == {name for name, _ in drawings()}

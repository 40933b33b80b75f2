"""report.html: a self-contained page with the answer first."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from dropsearch.core.atomic_io import atomic_write_text
from dropsearch.core.records import Claim, Summary
from dropsearch.report.figures.palette import ARM_STYLES
from dropsearch.report.figures.registry import Figure
from dropsearch.report.tables.arms import arms_table, differences_table, params_table, rates_table
from dropsearch.report.tables.evidence import (
    claim_answer,
    claim_number,
    contrasts_table,
    evidence_table,
    variation_tables,
)
from dropsearch.report.tables.table import Table, heading
from dropsearch.report.text.caveats import caveats
from dropsearch.report.text.contents import facts, follow_ups, reading, settings, title
from dropsearch.report.text.escaping import drawable, spans
from dropsearch.report.text.verdict import answer, rates_by_site
from dropsearch.report.text.warnings import warnings

ANSWERS = {"held": "held", "did not hold": "refuted", "undecided": "open", "not measured": "open"}
"""The class of each answer in `page.css`."""

_STEP = re.compile(r"(?<=[._/])(?=.)")
"""Positions where the path of a module may be wrapped."""


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    name: str
    """Anchor of links."""
    heading: str
    tables: tuple[Table, ...] = ()
    figures: tuple[str, ...] = ()
    """Names of its figures in reading order; missing ones are skipped."""
    folded: tuple[Table, ...] = ()
    """Collapsed tables."""
    words: str = ""


def write_page(
    summary: Summary, path: Path, figures: Sequence[Figure] = (), *, test_examples: int | None = None
) -> Path:
    """Write the page to `path` atomically and return the path."""
    atomic_write_text(path, page(summary, figures, test_examples))
    return path


def page(summary: Summary, figures: Sequence[Figure] = (), test_examples: int | None = None) -> str:
    """Return the page as HTML with `figures` as SVG."""
    drawn = {figure.name: figure for figure in figures}
    text = _template().render(
        title=title(summary),
        study=summary.study,
        complete=summary.complete,
        answer=answer(summary),
        beside=[text for text in (rates_by_site(summary), *warnings(summary)) if text],
        sections=[*_filled(_sections(summary), drawn)],
        figures=drawn,
        claims=[_claim(claim, drawn) for claim in (summary.evidence.claims if summary.evidence else ())],
        facts=[*facts(summary)],
        commands=[*follow_ups(summary, in_report=True)],
        settings=settings(summary.config),
        caveats=caveats(summary, test_examples),
        swatches=dict.fromkeys(ARM_STYLES)
        | {name: arm_style.colour for name, arm_style in ARM_STYLES.items() if name != "none"},
    )
    return drawable(text)


@cache
def _template() -> Any:
    """Return the template. It escapes everything except the SVG of figures and the package's style and script.

    The page's content security policy allows only this script, by its digest.
    """
    # Imported here, since the import takes 50 ms.
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "parts": lambda text: list(spans(text)),
        "heading": heading,
        "breakable": lambda text: Markup("<wbr>").join(_STEP.split(text)),
        "hash": lambda text: b64encode(sha256(text.encode()).digest()).decode(),
        "drawn": Markup,  # texts in SVG are already escaped
    }
    environment.globals |= {"css": Markup(_file("page.css")), "js": Markup(_file("page.js"))}
    return environment.from_string(_file("page.html"))


def _file(name: str) -> str:
    return files("dropsearch.report.html").joinpath(name).read_text(encoding="utf-8")


def _sections(summary: Summary) -> Iterator[Section]:
    answer = (arms_table(summary), differences_table(summary))
    yield Section("arms", "The arms", answer, ("differences",), words=reading(summary))
    yield Section(
        "rates",
        "Rates",
        (rates_table(summary), params_table(summary), *variation_tables(summary)),
        ("found", "responses", "rates"),
    )
    yield Section("curves", "Curves", (), ("curves", "best_so_far", "budgets"))
    yield Section(
        "evidence",
        "Evidence",
        (evidence_table(summary, intervals=True),),
        ("gaps", "coadaptation", "robustness", "ensemble", "shift"),
        (contrasts_table(summary),),
    )


def _filled(sections: Iterable[Section], drawn: Mapping[str, Figure]) -> Iterator[Section]:
    """Yield the sections with content, without missing parts."""
    for section in sections:
        known = [table for table in map(Table.trimmed, section.tables) if table.rows]
        tables = tuple(table for table in known if not table.is_long)
        folded = tuple(table for table in known if table.is_long)
        folded += tuple(table for table in map(Table.trimmed, section.folded) if table.rows)
        figures = tuple(name for name in section.figures if name in drawn)
        if tables or folded or figures:
            yield Section(section.name, section.heading, tables, figures, folded, section.words if known else "")


def _claim(claim: Claim, drawn: Mapping[str, Figure]) -> dict[str, Any]:
    return {
        "statement": claim.statement,
        "answer": claim_answer(claim),
        "kind": ANSWERS[claim.answer],
        "reason": claim.reason,
        "measure": claim.measure,
        "number": claim_number(claim),
        "figure": claim.figure if claim.figure in drawn else "",
    }

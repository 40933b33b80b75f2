"""Conversion of figures to inline SVG with selectable text and colors that follow the page's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG

from dropsearch.report.figures.layout import STYLE, FigureLayout
from dropsearch.report.figures.palette import GRID, QUIET
from dropsearch.report.text.escaping import drawable

POINTS = 72
"""SVG units per inch."""
THEMED = {
    "#000000": "var(--ink)",
    "#ffffff": "var(--paper)",
    QUIET.lower(): "var(--quiet)",
    GRID.lower(): "var(--grid)",
}
"""Colors that depend on the page's theme; colors of arms do not."""
_COLOUR = re.compile("|".join(THEMED))
_PLACES = {"x", "y", "d", "transform"}
_LONG = re.compile(r"-?\d+\.\d{3,}")
_LINK = re.compile(r"url\(#(.+)\)|#(.+)")


def inline(figure_layout: FigureLayout, name: str) -> str:
    """Return a figure without title and caption as an SVG element; `name` is the prefix of all ids.

    The page renders title and caption as text.
    """
    root = ElementTree.fromstring(drawable(_drawn(figure_layout, name)))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: _themed(key, value) for key, value in element.attrib.items()}
        element.tail = None
    for style in root.findall("defs/style/.."):
        root.remove(style)  # it would apply to the whole page
    _rename(root, name)
    _lighten(root)
    root.attrib = {"viewBox": _view(figure_layout), "role": "img", "aria-label": figure_layout.title}
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _drawn(figure_layout: FigureLayout, name: str) -> str:
    """Return matplotlib's SVG without background and with text as text."""
    stream = io.StringIO()
    figure_layout.figure.patch.set_visible(False)
    for panel in figure_layout.panels:
        panel.patch.set_visible(False)
    for text in figure_layout.words:
        text.set_visible(False)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        FigureCanvasSVG(figure_layout.figure).print_svg(
            stream, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    return stream.getvalue()


def _view(figure_layout: FigureLayout) -> str:
    width, height = figure_layout.figure.get_size_inches()
    above, below = figure_layout.margins
    return f"0 {POINTS * above:.1f} {POINTS * width:.1f} {POINTS * (height - above - below):.1f}"


def _themed(key: str, value: str) -> str:
    if key != "style":
        return value
    fonts = ", ".join(f"'{family}'" for family in STYLE["font.family"])
    return _COLOUR.sub(lambda match: THEMED[match[0]], value.replace(fonts, "var(--type)"))


def _lighten(root: ElementTree.Element) -> None:
    """Round coordinates to a hundredth of a point, and share the style of equal marks."""
    for element in root.iter():
        for key in _PLACES & element.attrib.keys():
            element.attrib[key] = _LONG.sub(lambda match: f"{float(match[0]):.2f}", element.attrib[key])
        element.text = element.text and element.text.strip()
        styles = {child.attrib.get("style", "") for child in element}
        if (
            element.tag == "g"
            and len(element) > 1
            and len(styles) == 1
            and all(child.tag == "use" for child in element)
        ):
            element.attrib["style"] = styles.pop()
            for child in element:
                child.attrib.pop("style", None)


def _rename(root: ElementTree.Element, name: str) -> None:
    """Make referenced ids unique to this figure and drop all others."""
    used = {target for element in root.iter() for _, target in _links(element)}
    for element in root.iter():
        for key, target in list(_links(element)):
            element.attrib[key] = element.attrib[key].replace(target, f"{name}-{target}")
        if "id" in element.attrib:
            own = element.attrib.pop("id")
            if own in used:
                element.attrib["id"] = f"{name}-{own}"


def _links(element: ElementTree.Element) -> Iterator[tuple[str, str]]:
    """Yield attributes that reference an id, with the id."""
    for key in ("href", "clip-path"):
        match = _LINK.fullmatch(element.attrib.get(key, ""))
        if match:
            yield key, match[1] or match[2]

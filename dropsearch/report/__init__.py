"""Output of a run: results.json, tables, the verdict, figures, reports and progress.

Importing this package does not import matplotlib; drawing the first figure does.
"""

from dropsearch.report.figures.registry import FIGURES, Figure, write_figures
from dropsearch.report.html.page import write_page
from dropsearch.report.markdown import write_markdown
from dropsearch.report.progress import Progress
from dropsearch.report.results import load_summary, results, save_summary, write_results
from dropsearch.report.tables.arms import arms_table, differences_table, rates_table
from dropsearch.report.tables.table import Table
from dropsearch.report.terminal import closing, opening
from dropsearch.report.text.verdict import verdict

__all__ = [
    "FIGURES",
    "Figure",
    "Progress",
    "Table",
    "arms_table",
    "closing",
    "differences_table",
    "load_summary",
    "opening",
    "rates_table",
    "results",
    "save_summary",
    "verdict",
    "write_figures",
    "write_markdown",
    "write_page",
    "write_results",
]

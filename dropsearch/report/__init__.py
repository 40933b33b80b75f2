"""What a run shows: results.json, tables, the verdict, figures, the reports and the progress bar.

Importing this package does not import matplotlib; drawing the first figure does.
"""

from dropsearch.report.figures import Figure, write_figures
from dropsearch.report.markdown import write_markdown
from dropsearch.report.page import write_page
from dropsearch.report.progress import Progress
from dropsearch.report.results import results, write_results
from dropsearch.report.tables import Table, arms_table, differences_table, rates_table
from dropsearch.report.terminal import closing, opening
from dropsearch.report.verdict import verdict

__all__ = [
    "Figure",
    "Progress",
    "Table",
    "arms_table",
    "closing",
    "differences_table",
    "opening",
    "rates_table",
    "results",
    "verdict",
    "write_figures",
    "write_markdown",
    "write_page",
    "write_results",
]

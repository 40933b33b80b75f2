"""The figures of a run, as PNG files of 1,200 pixels in width."""

from __future__ import annotations

from pathlib import Path

from dropsearch.records import Summary

NAMES = ("curves", "best_so_far", "rates", "differences")


def write_figures(summary: Summary, folder: Path) -> list[Path]:
    """Draw every figure that the run has data for into `folder`, and return their paths in reading order.

    A figure of an earlier run that this one has no data for is removed, so that none is mistaken for news.
    """
    # matplotlib takes a third of a second to import, which a run that draws nothing need not wait for.
    from dropsearch.report.curves import curves
    from dropsearch.report.differences import differences
    from dropsearch.report.sheet import drawing
    from dropsearch.report.trials import best_so_far, rates

    written = []
    with drawing():
        for name, draw in zip(NAMES, (curves, best_so_far, rates, differences), strict=True):
            path, drawn = folder / f"{name}.png", draw(summary)
            if drawn is None:
                path.unlink(missing_ok=True)
            else:
                written.append(drawn.save(path))
    return written

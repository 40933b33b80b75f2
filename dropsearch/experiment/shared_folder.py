"""Detection of an output directory that several machines share.

The run that writes the report stores the id of its study next to the checkpoints. A worker that can read this id
writes its checkpoints to the same folder.
"""

from __future__ import annotations

from typing import Any

from dropsearch.core.atomic_io import atomic_write_text
from dropsearch.experiment.context import ExperimentContext
from dropsearch.study.studies import identity

FILE = "study.id"


def mark(context: ExperimentContext, storage: Any) -> None:
    """Write the id of the study next to its checkpoints."""
    atomic_write_text(context.checkpoints / FILE, f"{identity(storage, context.config.study.name)}\n")


def is_shared(context: ExperimentContext, storage: Any) -> bool:
    """Return whether this process can access the output directory of the run that writes the report."""
    if context.config.study.storage is None:  # the study is in the output directory
        return True
    try:
        noted = (context.checkpoints / FILE).read_text().strip()
    except OSError:
        return False
    return noted == identity(storage, context.config.study.name)

"""Processor seconds of a benchmark's process and all that it started."""

from __future__ import annotations

import os
import resource

from dropsearch.core.processes import descendants, processor_time


def cpu_seconds() -> float:
    """Return the processor seconds of this process, of its ended children and of its live descendants."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages) + sum(
        processor_time(pid) or 0.0 for pid in descendants(os.getpid())
    )

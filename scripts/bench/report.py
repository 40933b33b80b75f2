"""Prints every table of docs/benchmarks.md that is measured, as Markdown.

python scripts/bench/report.py [SECTION ...] [--workloads NAME ...] [--quick]

Sections: peer, serial, processes, ceiling, widths, tracking, control, refill, user_module; all if none is named.
What each measures, and how, is told at the top of its file. On a machine with CUDA everything runs there, but for the
last, which is of the CPU. Both sides of a ratio alternate on one machine in one run; figures are medians of several
repetitions. --quick takes few repetitions and small widths, to check that everything works; its numbers mean little.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from datetime import date
from pathlib import Path

import compare
import control_cost
import machine_ceiling
import row_refill
import serial_baseline
import several_processes
import torch
import tracking_share
import user_module_speed
import widths
from workloads import QUICK, WORKLOADS

SECTIONS = {
    "serial": serial_baseline.SECTION,
    "processes": several_processes.SECTION,
    "ceiling": machine_ceiling.SECTION,
    "widths": widths.SECTION,
    "tracking": tracking_share.SECTION,
    "control": control_cost.SECTION,
    "refill": row_refill.SECTION,
    "user_module": user_module_speed.SECTION,
}
NAMES = ("peer", *SECTIONS)


def machine() -> str:
    """Return date, command and machine in one line."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    cpu = models[0] if models else platform.processor()
    gpu = f", {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}" if torch.cuda.is_available() else ", no GPU"
    return (
        f"{date.today().isoformat()}, {len(os.sched_getaffinity(0))} cores of {cpu}{gpu}, Python "
        f"{platform.python_version()}, torch {torch.__version__}; `python {shlex.join(sys.argv)}`"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--workloads", nargs="+", default=[], choices=WORKLOADS, help="by default each section's own")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.sections if name not in NAMES]
    if unknown:
        parser.error(f"no section {unknown[0]}: there are {', '.join(NAMES)}")
    print(f"{machine()}\n", flush=True)
    for name in chosen.sections or NAMES:
        if name == "peer":
            print("## Whole searches against Optuna, Lightning and MLFlowLogger\n", flush=True)
            compare.print_table(chosen.workloads, pairs=1 if chosen.quick else 5, more=QUICK if chosen.quick else ())
            print(flush=True)
        else:
            SECTIONS[name].print(chosen.workloads, quick=chosen.quick)


if __name__ == "__main__":
    main()

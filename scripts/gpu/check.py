"""Checks a GPU in sections, each in processes of its own with a time limit, none of which stops the others.

python scripts/gpu/check.py --out FOLDER [--small] [SECTION ...]

A section writes FOLDER/SECTION.json and FOLDER/SECTION.log; FOLDER/summary.md is written again as each one ends.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BENCH = ROOT / "scripts" / "bench"

# workload: epochs, our trials, trials of plain, of the raw loop; target and aim, as multiples of plain
TABLE = {
    "digits-mlp": (10, 1024, 6, 6, 50, 200),
    "mnist1d-transformer": (4, 256, 3, 3, 8, 20),
    "spoken-lstm": (4, 256, 3, 3, 5, 20),
    "fashion-mlp": (4, 256, 4, 4, 40, 100),
    "fashion-cnn": (4, 128, 3, 3, 8, 15),
}
WIDTHS = {
    "fashion-cnn": (("64", "grouped"), ("64", "by row"), ("128", "grouped")),
    "digits-mlp": (("32",), ("128",), ("512",)),
}
"""Of each workload the number of rows, and how it runs convolutions."""
AT_ONCE = 4
"""Plain processes that share the device."""
SMALL = ("data.train_size=128", "data.val_fraction=0.05", "trainer.max_epochs=1")


class Check:
    """Runs commands within the time that a section has left, and keeps what they print."""

    def __init__(self, out: Path, small: bool, workloads: list[str]) -> None:
        self.out, self.small, self.workloads = out, small, workloads
        self.ends, self.log = 0.0, out / "none.log"
        # A small check may run on a machine that does other work too.
        self.patience = 10 if small else 1

    def section(self, name: str, seconds: float, work: Callable[[Check], Any]) -> Any:
        """Run a section; return what it found, or how it failed."""
        self.ends, self.log = time.monotonic() + seconds, self.out / f"{name}.log"
        self.log.write_text("")
        started = time.monotonic()
        try:
            found = work(self)
        except Exception as error:  # the next section is to run all the same
            found = {"failed": f"{type(error).__name__}: {error}"[:500]}
        result = {"section": name, "seconds": round(time.monotonic() - started, 1), "found": found}
        (self.out / f"{name}.json").write_text(json.dumps(result, indent=1))
        return result

    def run(self, *words: str, at_most: float = 1e9) -> str:
        """Run a Python command; return what it printed.

        Raises:
            RuntimeError: It failed, or the time is over.
        """
        left = min(self.ends - time.monotonic(), at_most * self.patience)
        if left < 3:
            raise RuntimeError("no time left")
        status, printed = (_forked if self.small else _started)(words, left)
        self.note(words, printed)
        if status is None:
            raise RuntimeError(f"took more than {left:.0f} s: {' '.join(words)[-100:]}")
        if status:
            last = next((line for line in reversed(printed.splitlines()) if line.strip()), "")
            raise RuntimeError(f"status {status}: {last[:300]}")
        return printed

    def note(self, words: tuple[str, ...], printed: str) -> None:
        with self.log.open("a") as file:
            file.write(f"$ {' '.join(words)}\n{printed}\n")

    def answer(self, *words: str, at_most: float = 1e9) -> dict[str, Any]:
        """Run a Python command whose last line is JSON."""
        lines = self.run(*words, at_most=at_most).strip().splitlines()
        return json.loads(next(line for line in reversed(lines) if line.startswith("{")))


def _started(words: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Run a Python command in a new process; return its status, None if it took too long, and what it printed."""
    begun = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        start_new_session=True,
    )  # fmt: skip
    try:
        printed, _ = begun.communicate(timeout=seconds)
        return begun.returncode, printed
    except subprocess.TimeoutExpired:
        os.killpg(begun.pid, 9)
        printed, _ = begun.communicate()
        return None, printed


def _forked(words: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Do the same in a fork of this process, which imports the libraries once for all commands of a small run."""
    import dropsearch.experiment.runner  # noqa: F401

    with tempfile.TemporaryFile("w+") as file:
        child = multiprocessing.get_context("fork").Process(target=_execute, args=(words, file.fileno()))
        child.start()
        child.join(seconds)
        status = child.exitcode
        if status is None:
            os.killpg(child.pid or 0, 9)
            child.join()
        file.seek(0)
        return status, file.read()


def _execute(words: Sequence[str], output: int) -> None:
    os.setsid()
    os.chdir(ROOT)
    for stream in (1, 2):
        os.dup2(output, stream)
    kind = words[0] if words[0] in ("-m", "-c") else ""
    sys.argv = [*words[bool(kind) :]]
    if kind == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        exec(words[1], {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


def laws(check: Check) -> Any:
    """Own rates, the same trial anywhere, no harm from neighbours: on the device."""
    options = ("-q", "-W", "default", "-p", "no:cacheprovider", "-p", "no:xdist", "-rf", "--no-header", "--tb=short")
    if check.small:
        wanted = ("tests/training/vectorized/test_trials.py", "-k", "width and 3", "-m", "not gpu")
    else:
        wanted = ("tests/training/vectorized/test_gpu.py", "-m", "gpu")
    try:
        printed = check.run("-m", "pytest", *wanted, *options)
    except RuntimeError as error:
        printed = check.log.read_text()
        failed = [line for line in printed.splitlines() if line.startswith("FAILED")]
        return {"failed": str(error), "tests": failed}
    return {"passed": printed.strip().splitlines()[-1]}


def table(check: Check) -> Any:
    """Whole trials a second against plain Lightning on the same device."""
    found = {}
    names = ["digits-mlp"] if check.small else check.workloads
    for name in names:
        found[name] = _workload(check, name)
        (check.out / "table.partial.json").write_text(json.dumps(found, indent=1))
    return found


def _workload(check: Check, name: str) -> dict[str, Any]:
    epochs, ours, peers, raws, asked, aim = TABLE[name]
    more = [*SMALL, "engine.width=4"] if check.small else [f"trainer.max_epochs={epochs}"]
    ours, peers, raws = (4, 2, 2) if check.small else (ours, peers, raws)
    found: dict[str, Any] = {"asked": asked, "aim": aim}

    def one(side: str, script: str, trials: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            words = (str(BENCH / script), name, folder, "tracking=none", f"study.n_trials={trials}", *more)
            try:
                found[side] = check.answer(*words, at_most=75)
            except Exception as error:
                found[side] = {"failed": str(error)[:300]}

    one("ours", "ours.py", ours)
    one("plain", "plain.py", peers)
    one("raw", "raw_trials.py", raws)
    times = {side: run["run"] / run["trials"] for side, run in found.items() if isinstance(run, dict) and "run" in run}
    found["seconds a trial"] = times
    if "ours" in times and "plain" in times:
        found["times plain"] = times["plain"] / times["ours"]
    return found


def at_once(check: Check) -> Any:
    """Several plain processes at once on the device: whole trials a second of all together."""
    name = "digits-mlp"
    trials, more = (1, SMALL) if check.small else (TABLE[name][2], (f"trainer.max_epochs={TABLE[name][0]}",))
    with tempfile.TemporaryDirectory() as folder:
        words = (str(BENCH / "plain.py"), name, folder, "tracking=none", f"study.n_trials={trials}", *more)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            runs = [pool.submit(check.answer, *words) for _ in range(1 if check.small else AT_ONCE)]
            slowest = max(run.result()["run"] for run in runs)
    return {name: {"processes": AT_ONCE, "seconds a trial": slowest / trials / len(runs)}}


def widths(check: Check) -> Any:
    """Speed and memory against the number of rows."""
    found = {}
    wanted = {"digits-mlp": (("2",),)} if check.small else WIDTHS
    for name, each in wanted.items():
        for words in each:
            label = " ".join([name, *words])
            try:
                quick = ("--quick",) if check.small else ()
                found[label] = check.answer(str(HERE / "one_width.py"), name, *words, *quick, at_most=40)
            except Exception as error:
                found[label] = {"failed": str(error)[:300]}
    return found


def profile(check: Check) -> Any:
    """Where the time of one vectorized step goes."""
    found = {}
    names = {"digits-mlp": 8} if check.small else {"digits-mlp": 256, "fashion-mlp": 128, "fashion-cnn": 64}
    for name, width in names.items():
        quick = ("--quick",) if check.small else ()
        try:
            found[name] = check.answer(str(HERE / "step_profile.py"), name, str(width), *quick, at_most=40)
        except Exception as error:
            found[name] = {"failed": str(error)[:300]}
    return found


def whole(check: Check) -> Any:
    """The default run and a search of a user's module, as a user calls them."""
    small = (
        ("study.n_trials=4", "confirm.seeds=2", "confirm.top_k=1", *SMALL, "evidence=off", "arms=[none,dropout]")
        if check.small
        else ()
    )
    found: dict[str, Any] = {}
    runs = {"default": small}
    for name, words in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            try:
                printed = check.run("-m", "dropsearch", "tracking=none", f"output_dir={folder}", *words)
                found[name] = {"seconds": round(time.monotonic() - started, 1), "printed": printed[-3000:]}
            except Exception as error:
                found[name] = {"failed": str(error)[:300]}
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            user = (
                "-c",
                "import sys; sys.path.insert(0, 'examples'); sys.argv[0] = 'dropsearch'; "
                "from dropsearch.__main__ import main; main()",
                "model._target_=user_module.LitNet",
                "data._target_=user_module.Digits",
                "tracking=none",
                f"output_dir={folder}",
                *(word for word in small if not word.startswith("data.")),
            )
            printed = check.run(*user)
        found["user module"] = {"seconds": round(time.monotonic() - started, 1), "printed": printed[-3000:]}
    except Exception as error:
        found["user module"] = {"failed": str(error)[:300]}
    return found


SECTIONS: dict[str, tuple[float, Callable[[Check], Any]]] = {
    "laws": (90, laws),
    "table": (240, table),
    "at_once": (40, at_once),
    "widths": (80, widths),
    "profile": (60, profile),
    "whole": (75, whole),
}


def summary(results: list[dict[str, Any]]) -> str:
    """Return all that was found as a few lines of Markdown."""
    lines = []
    for result in results:
        lines.append(f"## {result['section']} ({result['seconds']} s)")
        found = result["found"]
        if result["section"] == "table" and "failed" not in found:
            lines += [
                "| workload | plain, s | raw, s | ours, s | times plain | asked | aim | ours ran as |",
                "|---" * 8 + "|",
            ]
            lines += [_line(name, row) for name, row in found.items()]
        else:
            lines.append(json.dumps(found, indent=1)[:4000])
    return "\n".join(lines) + "\n"


def _line(name: str, row: dict[str, Any]) -> str:
    times = row.get("seconds a trial", {})
    sides = [
        f"{times[side]:.4f}" if side in times else row[side].get("failed", "?")[:60]
        for side in ("plain", "raw", "ours")
    ]
    ratio = f"**{row['times plain']:.1f}**" if "times plain" in row else "?"
    return (
        f"| {' | '.join([name, *sides, ratio, str(row['asked']), str(row['aim']), row['ours'].get('engine', '?')])} |"
    )


def main() -> None:
    """Run the sections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--workloads", nargs="+", choices=TABLE, help="of the table")
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []])
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    check, results = Check(chosen.out, chosen.small, chosen.workloads or list(TABLE)), []
    for name in chosen.sections or SECTIONS:
        seconds, work = SECTIONS[name]
        results.append(check.section(name, seconds * check.patience, work))
        (chosen.out / "summary.md").write_text(summary(results))
        print(summary(results[-1:]), flush=True)


if __name__ == "__main__":
    main()

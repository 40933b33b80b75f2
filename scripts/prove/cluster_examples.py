"""Prove that the examples for clusters have the totals of a run on one machine, as far as one machine can show it.

    python scripts/prove/cluster_examples.py [--parts slurm,compose,kubernetes] [--trials 30] [--epochs 20]

`slurm.sbatch` runs as a job array of four tasks in a SLURM of one node (Debian's `slurm-wlm`), and one task is ended by
SLURM while it trains. The commands of `compose.yaml` and `kubernetes.yaml` run as processes, with the addresses of this
machine. All have a PostgreSQL server of their own, and the last two an MLflow server by the command of `compose.yaml`.
Everything listens on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

import slurm_node
from same_trials import check_same, overrides, wait_for

from tests.experiment.postgres_server import PostgresServer, missing
from tests.experiment.study_audit import check_mlflow, studies
from tests.free_port import free_port

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "cluster"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="slurm,compose,kubernetes")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    if absent := missing() or ("slurm" in given.parts and slurm_node.missing()):
        raise SystemExit(f"FAILED: {absent}")
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [*overrides(given.trials, given.epochs), "engine.processes=1"]
    with tempfile.TemporaryDirectory() as name, PostgresServer() as server:
        folder = Path(name)
        run([sys.executable, "-m", "dropsearch", *words, "tracking=none", f"output_dir={folder / 'alone'}"], folder)
        for part in given.parts.split(","):
            began, together = time.monotonic(), folder / part
            PARTS[part](words, server.database(part), together)
            check_same(folder / "alone", together)
            print(f"{part}: the same trials, scores and totals ({time.monotonic() - began:.0f} s)", flush=True)
    print("PROVEN: the examples have the totals of one machine")


def run(command: list[str], folder: Path, **environment: str) -> None:
    """Run a command to its end."""
    subprocess.run(command, cwd=folder, env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL)


def ended(storage: str) -> int:
    """Return how many trials of the searches have ended."""
    found = studies(storage).items()
    return sum(t.state.is_finished() for name, study in found if "confirm" not in name for t in study.get_trials())


def slurm(words: list[str], storage: str, output: Path) -> None:
    """Submit the job array; SLURM ends its last task while it trains."""
    with slurm_node.SlurmNode() as node:
        exported = ",".join(("ALL", f"STORAGE={storage}", f"OUTPUT={output}", f"PYTHON={sys.executable}"))
        log = node.folder / "task-%a.log"
        options = ["--parsable", "--array=0-3", "--cpus-per-task=1", f"--export={exported}", f"--output={log}"]
        job = node.call("sbatch", *options, str(EXAMPLES / "slurm.sbatch"), *words, "tracking=none").strip()
        wait_for("the first trials", lambda: ended(storage) > 2)
        node.call("scancel", "--batch", "--signal=TERM", f"{job}_3")
        wait_for("the job array", lambda: not node.call("squeue", "-h", "-j", job).strip(), 1200)
        logs = [(node.folder / f"task-{task}.log").read_text() for task in range(4)]
        assert "report.html" in logs[0], logs[0]
        assert all("has nothing left to train" in each for each in logs[1:3]), logs
        assert "stopped" in logs[3] or "has nothing left" in logs[3], logs[3]


def compose(words: list[str], storage: str, output: Path) -> None:
    """Run the commands of the services: the MLflow server, the run, and two workers."""
    services = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())["services"]
    count = services["worker"]["deploy"]["replicas"]
    with mlflow_server(services["mlflow"]["command"], output) as address:
        commands = [services["run"]["command"]] + count * [services["worker"]["command"]]
        together([_here(each, storage, address, output, words) for each in commands], output)
        check_mlflow(address, storage)


def kubernetes(words: list[str], storage: str, output: Path) -> None:
    """Run the commands of the containers: the run, and its workers."""
    documents = list(yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text()))
    jobs = [each["spec"] for each in documents if each["kind"] == "Job"]
    data = next(each["data"] for each in documents if each["kind"] == "ConfigMap")
    values = {"OVERRIDES": "", "TASK": "search", "STORAGE": data["storage"], "TRACKING": data["tracking"]}
    service = yaml.safe_load((EXAMPLES / "compose.yaml").read_text())["services"]["mlflow"]["command"]
    commands = []
    for job in jobs:
        (container,) = job["template"]["spec"]["containers"]
        line = re.sub(r"\$(\w+)", lambda name: values[name[1]], container["args"][0].removeprefix("exec "))
        commands += min(job.get("parallelism", 1), 3) * [line]
    with mlflow_server(service, output) as address:
        together([_here(each, storage, address, output, words) for each in commands], output)
        check_mlflow(address, storage)


def _here(command: str, storage: str, tracking: str, output: Path, words: list[str]) -> list[str]:
    """Return the command of a container with the addresses and the interpreter of this machine."""
    _, *rest = shlex.split(command)
    places = {"study.storage": storage, "tracking.uri": tracking, "output_dir": str(output)}
    given = [f"{key}={places.get(key, value)}" if equals else key for key, equals, value in map(_parts, rest)]
    is_run = "task=work" not in given
    return [sys.executable, *given, *words, *(["tracking.log_model=false"] if is_run else [])]


def _parts(word: str) -> tuple[str, str, str]:
    return word.partition("=")


def together(commands: list[list[str]], output: Path) -> None:
    """Run commands side by side; all must end well."""
    output.mkdir(exist_ok=True)
    running = [subprocess.Popen(each, cwd=output, stdout=subprocess.DEVNULL) for each in commands]
    statuses = [each.wait() for each in running]
    assert statuses == [0] * len(commands), statuses


@contextmanager
def mlflow_server(command: str, output: Path) -> Iterator[str]:
    """Start the MLflow server by its command, on a free port of 127.0.0.1, with its files beside the output."""
    port, place = free_port(), output.with_name(f"{output.name}-mlflow")
    place.mkdir()
    words = command.replace("0.0.0.0", "127.0.0.1").replace("5000", str(port)).replace("/mlflow/", f"{place}/")
    with ExitStack() as stack:
        log = stack.enter_context((place / "log").open("wb"))
        server = subprocess.Popen(
            [sys.executable, "-m", *shlex.split(words)], stdout=log, stderr=log, start_new_session=True
        )
        stack.callback(_end_session, server)
        address = f"http://127.0.0.1:{port}"
        wait_for("the MLflow server", lambda: _answers(f"{address}/health"))
        yield address


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _end_session(server: subprocess.Popen[Any]) -> None:
    os.killpg(server.pid, signal.SIGTERM)
    server.wait()


PARTS = {"slurm": slurm, "compose": compose, "kubernetes": kubernetes}

if __name__ == "__main__":
    main()

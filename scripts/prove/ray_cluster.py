"""Prove that a run on a Ray cluster has the totals of a run on one machine, also where an actor and a node die.

Two nodes are simulated on this machine (`ray.cluster_utils.Cluster`), on 127.0.0.1. A third one joins while the run
trains; then an actor is killed, and a node is removed. A second run has its driver killed and is continued by the same
command. A third trains a module of a file in the working folder.

    python scripts/prove/ray_cluster.py [--trials 60] [--epochs 100]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from same_trials import check_same, overrides, wait_for

STORE = 100 * 2**20
"""Bytes of a node's object store."""


def command(folder: Path, options: argparse.Namespace, *more: str) -> list[str]:
    """Return the command of a run."""
    given = [*overrides(options.trials, options.epochs), "tracking=none", f"output_dir={folder}"]
    return [sys.executable, "-m", "dropsearch", *given, *more]


def actor_pids() -> list[int]:
    """Return the processes of actors on this machine."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").strip()
            except OSError:
                continue
            if title.startswith(b"ray::Worker"):
                pids.append(int(entry.name))
    return sorted(pids)


def ended(folder: Path) -> int:
    journal = folder / "study.journal"
    return journal.read_text().count('"result"') if journal.exists() else 0


def nodes_come_and_go(cluster: Any, together: Path, options: argparse.Namespace) -> None:
    """Train on two nodes; a third one joins, an actor is killed, a node is removed."""
    second = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    run = subprocess.Popen(on(cluster, together, options), stdout=subprocess.DEVNULL)
    wait_for("the first trials", lambda: ended(together) > 4)
    before = actor_pids()
    cluster.add_node(num_cpus=1, object_store_memory=STORE)
    wait_for("an actor on the node that joined", lambda: len(actor_pids()) > len(before))
    print(f"{len(before)} actors; a node joined: {len(actor_pids())}")
    os.kill(actor_pids()[0], signal.SIGKILL)
    print(f"an actor is killed after {ended(together)} trials")
    wait_for("trials after that", lambda: ended(together) > 16 or run.poll() is not None)
    assert run.poll() is None, "the run ended before a node was removed: give more trials or epochs"
    cluster.remove_node(second, allow_graceful=False)
    print(f"a node is removed after {ended(together)} trials")
    status = run.wait(1200)
    assert status == 0, f"the run ended with status {status}"


def driver_is_killed(cluster: Any, together: Path, options: argparse.Namespace) -> None:
    """Kill the driver while it trains, and give the same command again."""
    run = subprocess.Popen(on(cluster, together, options), stdout=subprocess.DEVNULL)
    wait_for("the first trials", lambda: ended(together) > 8)
    assert run.poll() is None
    run.kill()
    run.wait()
    print(f"the driver is killed after {ended(together)} trials")
    wait_for("the end of its actors", lambda: not actor_pids())
    subprocess.run(on(cluster, together, options), check=True, stdout=subprocess.DEVNULL)


def user_code_is_sent(cluster: Any, folder: Path, options: argparse.Namespace) -> None:
    """Train a module of a file in the working folder, which actors get by Ray's runtime environment."""
    place = folder / "user"
    place.mkdir()
    shutil.copy(Path(__file__).parents[2] / "examples" / "user_module.py", place)
    own = ["model._target_=user_module.LitNet", "data._target_=user_module.Digits"]
    for name, more in (("alone", ["engine.processes=1"]), ("together", on(cluster, folder, options)[-2:])):
        kept = [word for word in command(folder / f"user-{name}", options) if not word.startswith(("model.", "data."))]
        subprocess.run([*kept, *own, *more], cwd=place, check=True, stdout=subprocess.DEVNULL)
    check_same(folder / "user-alone", folder / "user-together")


def on(cluster: Any, folder: Path, options: argparse.Namespace) -> list[str]:
    """Return the command of a run on a cluster."""
    return command(folder, options, "cluster=ray", f"cluster.address={cluster.address}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=100)
    options = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # keeps 127.0.0.1 what it is
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = folder / "alone"
        subprocess.run(command(alone, options, "engine.processes=1"), check=True, stdout=subprocess.DEVNULL)
        node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": STORE}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "node_ip_address": "127.0.0.1"})
        try:
            for part in (nodes_come_and_go, driver_is_killed):
                part(cluster, folder / part.__name__, options)
                check_same(alone, folder / part.__name__)
            user_code_is_sent(cluster, folder, options)
        finally:
            cluster.shutdown()
    print("PROVEN: the same trials, scores and totals as on one machine")


if __name__ == "__main__":
    main()

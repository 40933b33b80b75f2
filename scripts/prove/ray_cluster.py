"""Prove that a run on a Ray cluster has the totals of a run on one machine, also where an actor and a node die.

Two nodes are simulated on this machine (`ray.cluster_utils.Cluster`), on 127.0.0.1. A third one joins while the run
trains; then an actor is killed, and a node is removed.

    python scripts/prove/ray_cluster.py [--trials 40] [--epochs 20]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ARMS = ("none", "dropout")


def command(folder: Path, options: argparse.Namespace, *more: str) -> list[str]:
    given = [
        "model.hidden=[16]",
        "data.train_size=200",
        f"trainer.max_epochs={options.epochs}",
        "trainer.accelerator=cpu",
        f"study.n_trials={options.trials}",
        "confirm.top_k=2",
        "confirm.seeds=2",
        "sampler=random",
        "pruner=none",
        "engine=vectorized",
        "engine.width=2",
        f"arms=[{','.join(ARMS)}]",
        "tracking=none",
        "evidence=off",
        f"output_dir={folder}",
    ]
    return [sys.executable, "-m", "dropsearch", *given, *more]


def trials_of(folder: Path) -> dict[str, Any]:
    """Return what each trial scored, by arm and number, and how many retrainings there are."""
    found = json.loads((folder / "results.json").read_text())["arms"]
    scores = {arm: {t["number"]: t["val_loss"] for t in found[arm]["trials"]} for arm in ARMS}
    retrained = {arm: sum(len(c["seeds"]) for c in found[arm]["confirmed"]) for arm in ARMS}
    return {"scores": scores, "retrained": retrained}


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


def wait_for(what: str, done: Any, seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            raise SystemExit(f"FAILED: waited {seconds:.0f} s for {what}")
        time.sleep(0.2)


def ended(folder: Path) -> int:
    journal = folder / "study.journal"
    return journal.read_text().count('"result"') if journal.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # keeps 127.0.0.1 what it is
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as name:
        alone, together = Path(name) / "alone", Path(name) / "together"
        subprocess.run(command(alone, options, "engine.processes=1"), check=True, stdout=subprocess.DEVNULL)
        node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "node_ip_address": "127.0.0.1"})
        try:
            second = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
            given = command(together, options, "cluster=ray", f"cluster.address={cluster.address}")
            run = subprocess.Popen(given, stdout=subprocess.DEVNULL)
            wait_for("the first trials", lambda: ended(together) > 4)
            before = actor_pids()
            cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
            wait_for("an actor on the node that joined", lambda: len(actor_pids()) > len(before))
            print(f"{len(before)} actors; a node joined: {len(actor_pids())}")
            os.kill(actor_pids()[0], signal.SIGKILL)
            print(f"an actor is killed after {ended(together)} trials")
            wait_for("trials after that", lambda: ended(together) > 16 or run.poll() is not None)
            cluster.remove_node(second, allow_graceful=False)
            print(f"a node is removed after {ended(together)} trials")
            status = run.wait(600)
            assert status == 0, f"the run ended with status {status}"
        finally:
            cluster.shutdown()
        one, many = trials_of(alone), trials_of(together)
        assert one["retrained"] == many["retrained"], (one["retrained"], many["retrained"])
        for arm in ARMS:
            assert sorted(one["scores"][arm]) == sorted(many["scores"][arm]), arm
            values = [sorted(scores[arm].values()) for scores in (one["scores"], many["scores"])]
            far = max(abs(a - b) for a, b in zip(*values, strict=True))
            print(f"{arm}: {len(values[0])} trials; largest difference of the same scores {far:.1e}")
            assert far < 1e-4
    print("PROVEN: the same trials, scores and totals as on one machine")


if __name__ == "__main__":
    main()

"""A small study whose trials are the same wherever they are trained, and the comparison of two runs of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ARMS = ("none", "dropout")
TOLERANCE = 1e-4
"""How far the same score may differ: rows of another width round otherwise in float32."""


def overrides(trials: int, epochs: int) -> list[str]:
    """Return the study: the random sampler makes each trial a function of the seed."""
    return [
        "model.hidden=[16]",
        "data.train_size=200",
        f"trainer.max_epochs={epochs}",
        "trainer.accelerator=cpu",
        f"study.n_trials={trials}",
        "confirm.top_k=2",
        "confirm.seeds=2",
        "sampler=random",
        "pruner=none",
        "engine=vectorized",
        "engine.width=2",
        f"arms=[{','.join(ARMS)}]",
        "evidence=off",
    ]


def trials_of(folder: Path) -> dict[str, Any]:
    """Return what each trial scored, by arm and number, and how many retrainings there are."""
    found = json.loads((folder / "results.json").read_text())["arms"]
    scores = {arm: {t["number"]: t["val_loss"] for t in found[arm]["trials"]} for arm in ARMS}
    retrained = {arm: sum(len(c["seeds"]) for c in found[arm]["confirmed"]) for arm in ARMS}
    return {"scores": scores, "retrained": retrained}


def check_same(alone: Path, together: Path) -> None:
    """Check that two runs have the same trials and scores, as many retrainings, and the same files.

    A process that dies leaves its trials interrupted under their numbers, and the same trials follow under others.
    """
    one, many = trials_of(alone), trials_of(together)
    assert one["retrained"] == many["retrained"], (one["retrained"], many["retrained"])
    for arm in ARMS:
        values = [sorted(scores[arm].values()) for scores in (one["scores"], many["scores"])]
        assert len(values[0]) == len(values[1]), (arm, *map(len, values))
        far = max(abs(a - b) for a, b in zip(*values, strict=True))
        print(f"{arm}: {len(values[0])} trials; largest difference of the same scores {far:.1e}")
        assert far < TOLERANCE
    for name in ("report.html", "report.md"):
        assert (together / name).exists(), name


def wait_for(what: str, done: Callable[[], Any], seconds: float = 300.0) -> None:
    """Wait until something has happened.

    Raises:
        SystemExit: It has not.
    """
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            raise SystemExit(f"FAILED: waited {seconds:.0f} s for {what}")
        time.sleep(0.2)

"""Law 4: kill -9 and other faults at random moments; at length by the scripts in `scripts/prove`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.experiment.fault_campaign import FaultCampaign
from tests.experiment.forked_runs import RunForker
from tests.experiment.kill_campaign import Campaign


@pytest.mark.parametrize(
    ("storage", "kills", "seed", "repeats"), [("", 2, 20, 2), ("sqlite:///FOLDER/study.db", 2, 21, 1)]
)
def test_kills_at_random_moments_lose_and_repeat_nothing(
    run_forker: RunForker, tmp_path: Path, storage: str, kills: int, seed: int, repeats: int
) -> None:
    light = ("engine=sequential", "evidence=off", *(["tracking=none"] if storage else []))
    campaign = Campaign(run_forker, tmp_path, storage, seed, light, repeats, kills_per_study=kills)
    try:
        campaign.run(kills)
    except AssertionError as error:
        history = "\n".join(campaign.history)
        raise AssertionError(f"seed {seed} of storage {storage or 'journal'}:\n{history}\n{error}") from error
    assert campaign.kills == kills


def test_faults_at_random_moments_lose_and_repeat_nothing(run_forker: RunForker, tmp_path: Path):
    campaign = FaultCampaign(run_forker, tmp_path, "sqlite", seed=1, faults_per_study=2)
    campaign.run(2)
    assert campaign.faults.total() >= 2
    assert campaign.endings >= 1

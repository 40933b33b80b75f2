"""What each model of a public package is held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dropsearch
from dropsearch.core.batches import tensors

Make = Callable[..., Any]


def searched(
    make: Make, data: Any, folder: Path, engine: str, monitor: str = "val_loss", precision: str = "64-true"
) -> Any:
    """Search a model: three trials of three epochs, one of them retrained on two fresh seeds."""
    given = data if isinstance(data, Mapping) else {"datamodule": data}
    return dropsearch.search(
        make,
        **given,
        n_trials=3,
        max_epochs=3,
        monitor=monitor,
        arms=["dropout"],
        confirm_top_k=1,
        confirm_seeds=2,
        accelerator="cpu",
        engine=engine,
        output_dir=folder,
        overrides=[f"trainer.precision={precision}", "evidence=off", *_ONE_PROCESS[engine]],
    )


_ONE_PROCESS = {"sequential": [], "auto": ["engine.processes=1", "engine.width=3"]}


def assert_alike(
    make: Make,
    data: Callable[[], Any],
    folder: Path,
    sites: Sequence[str],
    monitor: str = "val_loss",
    precision: str = "64-true",
) -> None:
    """The model trains vectorized, at these sites, with the numbers of plain Lightning; its seeds vary."""
    together = searched(make, data(), folder / "vectorized", "auto", monitor, precision)
    assert together.summary.engine.startswith("vectorized"), together.summary.engine
    alone = searched(make, data(), folder / "sequential", "sequential", monitor, precision)
    assert sorted(site.name for site in together.summary.sites if site.controllable) == sorted(sites)
    one, other = (result.trials_dataframe() for result in (together, alone))
    names = [name for name in other.columns if name != "seconds" and other[name].dtype == float]
    assert monitor in names
    assert list(one["state"]) == list(other["state"]) == ["COMPLETE"] * 3
    within = {"rel": 1e-7, "abs": 1e-8} if precision == "64-true" else {"rel": 1e-3, "abs": 1e-4}
    for name in names:
        assert list(one[name]) == pytest.approx(list(other[name]), nan_ok=True, **within), name
    assert_seeds_vary(together)


def assert_seeds_vary(result: Any) -> None:
    """Trials of the same settings differ between seeds."""
    winner = result.summary.arms["dropout"].winner
    assert winner is not None
    assert len({trial.best.objective for trial in winner.results}) == 2


def shares_of_zeros(module: nn.Module, run: Callable[[], Any], sites: Sequence[str], rate: float) -> dict[str, float]:
    """Return the share of nonzero inputs that each part drops in a training pass, where its rate is set to `rate`.

    Parts whose inputs are all zero, such as those of static variables that there are none of, are left out.

    Args:
        module: Any module, in training mode.
        run: Runs it.
        sites: Names of parts that drop, as `nn.Dropout` does.
        rate: Of all sites.
    """
    counts = {site: [0, 0] for site in sites}

    def hook(site: str) -> Callable[..., None]:
        def count(_: Any, inputs: Any, output: Any) -> None:
            given, kept = next(tensors(list(inputs))), next(tensors(output))
            counts[site][0] += int(((given != 0) & (kept == 0)).sum())
            counts[site][1] += int((given != 0).sum())

        return count

    handles = [module.get_submodule(site).register_forward_hook(hook(site)) for site in sites]
    with torch.no_grad(), dropsearch.set_rates(module, dict.fromkeys(sites, rate)):
        for _ in range(20):
            run()
    for handle in handles:
        handle.remove()
    return {site: dropped / seen for site, (dropped, seen) in counts.items() if seen}

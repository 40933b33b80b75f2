"""A finished run in MLflow's own pages, as people look at it: in a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dropsearch.experiment.tasks import run
from tests.chromium import Chromium, missing
from tests.experiment.conftest import composed
from tests.experiment.one_figure import PLACE, write_first_figure
from tests.tracking.mlflow.mlflow_pages import Pages, served

EPOCHS = 2
SMALL = (
    "model.hidden=[16]",
    "data.train_size=90",
    "data.batch_size=30",
    f"trainer.max_epochs={EPOCHS}",
    "trainer.accelerator=cpu",
    "arms=[none,dropout]",
    "study.n_trials=3",
    "confirm.top_k=1",
    "confirm.seeds=2",
    "engine=sequential",
    "tracking=mlflow",
    "evidence=off",
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())} (Debian: chromium-driver)"),
]


@dataclass(frozen=True)
class Store:
    """What a run left in its MLflow database."""

    folder: Path
    results: dict[str, Any]
    runs: dict[str, str]
    """Ids by name."""
    model: Any
    experiment: str


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A real run, small, in a folder of its own."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("browsed")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(PLACE, write_first_figure)
        assert run(composed(*SMALL, f"output_dir={folder}")) == 0
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("mlp-digits")
    assert experiment is not None
    runs = {str(run.info.run_name): str(run.info.run_id) for run in client.search_runs([experiment.experiment_id])}
    (model,) = client.search_logged_models([experiment.experiment_id])
    results = json.loads((folder / "results.json").read_text())
    return Store(folder, results, runs, model, experiment.experiment_id)


@pytest.fixture(scope="module")
def pages(store: Store) -> Iterator[Pages]:
    with served(store.folder / "mlflow.db") as address, Chromium() as browser:
        yield Pages(browser, address, store.experiment)


def test_the_experiment_lists_the_parent_and_expanding_shows_arms_and_trials(pages: Pages, store: Store) -> None:
    pages.runs(store.runs["mlp-digits"])
    assert pages.listed() == ["mlp-digits"]
    pages.expand(store.runs["mlp-digits"], shows=store.runs["dropout"])
    assert set(pages.listed()) == {"mlp-digits", "none", "dropout"}
    pages.expand(store.runs["dropout"], shows=store.runs["dropout/0"])
    assert {"dropout/0", "dropout/1", "dropout/2", "dropout confirm"} <= set(pages.listed())


def test_the_printed_link_opens_the_run_and_leads_to_the_training_runs(pages: Pages, store: Store) -> None:
    _, _, page = store.results["commands"]["run"].partition("/#/")
    pages.open(page)
    pages.browser.until("document.body.innerText.includes('val_loss_confirmed')")
    assert store.results["answer"][0] in " ".join(pages.text().split())
    pages.browser.run("[...document.querySelectorAll('a')].find(link => link.innerText.trim() == 'Runs').click()")
    pages.browser.until(f"document.querySelector('[row-id=\"{store.runs['mlp-digits']}\"]')")


def test_the_arms_are_compared_by_what_they_found(pages: Pages, store: Store) -> None:
    pages.runs(store.runs["mlp-digits"])
    pages.expand(store.runs["mlp-digits"], shows=store.runs["dropout"])
    pages.compare([store.runs["none"], store.runs["dropout"]])
    winner = store.results["arms"]["dropout"]["winner"]
    assert {"chosen_lr", str(winner["rates"]["net.hidden1.dropout"])} <= set(pages.text().split())
    pages.last_rows(shows="val_loss_confirmed")
    assert f"{winner['mean_val_loss']:.3f}" in pages.text().split()


def test_a_trial_shows_train_and_validation_curves_on_one_page(pages: Pages, store: Store) -> None:
    shown = pages.curves(store.runs["dropout/0"])
    assert shown["dropsearch/train_loss"] == shown["val_loss"] == EPOCHS


def test_the_report_opens_as_an_artifact(pages: Pages, store: Store) -> None:
    pages.report(store.runs["mlp-digits"])
    try:
        assert store.results["verdict"] in " ".join(pages.text().split())
        width = "document.querySelector('#figure-curves svg').getBoundingClientRect().width"
        assert pages.browser.run(f"return {width}") > 400
        # Its style holds there, its links lead within it, and no script runs but its own.
        assert pages.browser.run("return getComputedStyle(document.querySelector('.answer')).borderLeftWidth") == "4px"
        pages.browser.run("document.querySelector('nav a[href=\"#caveats\"]').click()")
        pages.browser.until("document.querySelector('#caveats').getBoundingClientRect().top < window.innerHeight")
        element = "const script = document.createElement('script'); script.textContent = 'window.ran = 1'"
        assert pages.browser.run(f"{element}; document.body.append(script); return window.ran ?? 0") == 0
    finally:
        pages.browser.top()


def test_the_winner_is_a_logged_model_that_loads_and_predicts(
    pages: Pages, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import numpy as np

    pages.model(store.model.model_id)
    assert "Ready" in pages.text()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store.folder}/mlflow.db")
    model = mlflow.pyfunc.load_model(store.model.model_uri)
    (given,) = model.metadata.signature.inputs.inputs
    assert (given.shape, given.type) == ((-1, 1, 8, 8), np.dtype("float32"))
    assert model.predict(np.zeros((3, 1, 8, 8), np.float32)).shape == (3, 10)

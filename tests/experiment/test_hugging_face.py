"""A search for the rates of a model of Hugging Face's transformers, from Python and from the command line."""

from __future__ import annotations

from pathlib import Path

import dropsearch
from tests.experiment.conftest import Cli
from tests.experiment.test_assortment import TINY
from tests.user_modules import hugging_face as user_modules

SITES = [
    "model.bert.embeddings.dropout",
    "model.bert.encoder.layer.0.attention.self",
    "model.bert.encoder.layer.0.attention.output.dropout",
    "model.bert.encoder.layer.0.output.dropout",
    "model.dropout",
]


def test_from_python_it_trains_vectorized_and_the_rates_are_set(tmp_path: Path) -> None:
    found = dropsearch.search(
        user_modules.Unpacking,
        user_modules.Tuples(),
        output_dir=tmp_path / "out",
        overrides=["engine.processes=1", "engine.width=2", "evidence=off"],
        **TINY,  # type: ignore[arg-type]
    )
    assert found.summary.engine == "vectorized, 2 trials at once on cpu"
    assert list(found.rates("dropout")) == SITES
    module = found.apply(user_modules.Unpacking(attention="eager")).train()
    batch = tuple(user_modules.sentences().values())
    assert {site.name: site.rate for site in dropsearch.dropout_sites(module, batch)} == found.rates("dropout")


def test_dictionary_batches_train_vectorized_from_the_command_line(cli: Cli) -> None:
    here = "tests.user_modules.hugging_face"
    words = (f"model._target_={here}.Classifier", "model.attention=eager", f"data._target_={here}.Sentences")
    little = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "confirm.top_k=1", "confirm.seeds=1")
    ended = cli(
        *words,
        *little,
        "study.n_trials=1",
        "tracking=none",
        "evidence=off",
        "engine.processes=1",
        "engine=vectorized",
        "engine.width=1",
        "output_dir=out",
    )
    assert ended.status == 0, ended.err
    assert "vectorized, 1 trial at once on cpu" in " ".join(ended.out.split())
    assert all(site in ended.out for site in SITES)

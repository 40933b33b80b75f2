"""A password that a user gives is in no output: terminal, files of the run, study, MLflow."""

from __future__ import annotations

import re
import shlex
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL, make_url

from dropsearch.config.plain import plain, without_secrets
from dropsearch.config.schema import Config
from dropsearch.experiment.artifacts import best_yaml
from dropsearch.experiment.provenance import commands
from tests.experiment.conftest import ONE_TRIAL, Cli, composed
from tests.tracking.mlflow.mlflow_pages import served
from tests.tracking.tracked_studies import make_result, make_spec

SECRET = "hunter2-4711"


@pytest.mark.parametrize(
    ("given", "variables"),
    [
        ({"api_key": [SECRET, SECRET]}, ["MODEL_API_KEY_0", "MODEL_API_KEY_1"]),
        ({"options": {"token": [SECRET]}}, ["MODEL_OPTIONS_TOKEN_0"]),
        ({"password": {"a": {"b": SECRET}}}, ["MODEL_PASSWORD_A_B"]),
    ],
)
def test_all_under_the_key_of_a_secret_is_referred_to(given: dict[str, Any], variables: list[str]) -> None:
    written = str(without_secrets(given, "model"))
    assert SECRET not in written
    assert re.findall(r"oc\.env:DROPSEARCH_(\w+)", written) == variables


MODULE = """
from user_module import LitNet

class Keyed(LitNet):
    def __init__(self, width=4, lr=1e-3, dropout=0.5, api_key=""):
        super().__init__(width, lr, dropout)
        assert api_key == "KEY"
        self.hparams.clear()
        self._set_hparams({"width": width, "lr": lr, "dropout": dropout})

    def training_step(self, batch, batch_idx):
        if self.hparams["lr"] < 1e-3:
            raise ValueError("no answer from redis://ann:KEY@host/0")
        return super().training_step(batch, batch_idx)
""".replace("KEY", SECRET)


class GuardedDialect(SQLiteDialect_pysqlite):
    """SQLite behind an address with a user, a password and a host, as a server has them."""

    supports_statement_cache = True

    def create_connect_args(self, url: URL) -> Any:
        return super().create_connect_args(make_url(f"sqlite:////{url.database}"))


@pytest.fixture
def guarded(tmp_path: Path) -> str:
    """Return the address of a database with a password."""
    registry.register("guarded", __name__, "GuardedDialect")
    (tmp_path / "database").mkdir()
    return f"guarded://ann:{SECRET}@127.0.0.1/{tmp_path}/database/study.db"


def texts(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_planted_secret_is_found_nowhere(cli: Cli, folder: Path, guarded: str, empty_database: Path) -> None:
    (folder / "keyed.py").write_text(MODULE)
    source = folder / "keyed.py"
    with served(empty_database) as address:
        ended = cli(
            "model._target_=keyed.Keyed",
            f"+model.api_key={SECRET}",
            "data._target_=user_module.Digits",
            "arms=[none,dropout]",
            "study.n_trials=3",
            "trainer.max_epochs=1",
            "confirm.top_k=1",
            "confirm.seeds=2",
            "evidence.severities=1",
            "evidence.monte_carlo=[1,2]",
            f"study.storage={guarded}",
            f"tracking.uri={address.replace('//', f'//ann:{SECRET}@')}",
            "output_dir=out",
        )
    assert ended.status == 0, ended.err
    assert SECRET not in ended.out + ended.err
    found = [path for path, text in texts(folder).items() if SECRET.encode() in text]
    own = [path for path in found if path.parent.name != "__pycache__"]
    assert own == [source], "only the file in which the user wrote it, and what Python makes of it"
    server = texts(empty_database.parent)
    assert [path for path, text in server.items() if SECRET.encode() in text] == []
    with closing(sqlite3.connect(empty_database)) as database:
        assert database.execute("SELECT count(*) FROM params WHERE key LIKE '%api_key'").fetchone() == (1,)


BARE = """
import os

from user_module import Digits, LitNet


class Net(LitNet):
    def __init__(self, width=4, lr=1e-3, dropout=0.5, api_key=""):
        super().__init__(width, lr, dropout)
        self.refuse("init", api_key)

    def training_step(self, batch, batch_idx):
        if batch_idx:
            self.refuse("step", self.hparams.api_key)
        return super().training_step(batch, batch_idx)

    def refuse(self, where, key):
        if os.environ["FAILS_IN"] == where:
            raise ConnectionError(f"{self!r} was refused, login {key}, then {os.environ['HUB_TOKEN']}")

    def __repr__(self):
        return f"Net({self.hparams.get('api_key')})"
"""


@pytest.mark.parametrize(("where", "status"), [("init", 2), ("step", 1), ("nothing", 0)])
def test_a_secret_without_its_name_is_found_nowhere(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch, where: str, status: int
) -> None:
    """User code writes the values alone into its errors and representations, and saves all its arguments."""
    (folder / "bare.py").write_text(BARE)
    monkeypatch.delitem(sys.modules, "bare", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("FAILS_IN", where)
    monkeypatch.setenv("HUB_TOKEN", f"of-environment-{SECRET}")
    ended = cli(
        "model._target_=bare.Net",
        f"+model.api_key={SECRET}",
        "data._target_=bare.Digits",
        *ONE_TRIAL,
        "output_dir=out",
    )
    assert ended.status == status, ended.err
    assert SECRET not in ended.out + ended.err
    assert ("login ***" in ended.out + ended.err) is (where != "nothing")
    assert [path for path, text in texts(folder / "out").items() if SECRET.encode() in text] == []
    if where == "nothing":
        held = torch.load(folder / "out" / "best" / "none.ckpt", weights_only=True)["hyper_parameters"]
        assert set(held) == {"width", "lr", "dropout"}, "what is no secret stays"


PLACED = """
from user_module import Digits, LitNet


class Net(LitNet):
    def __init__(self, data_dir, width=4, lr=1e-3, dropout=0.5):
        super().__init__(width, lr, dropout)
        self.save_hyperparameters()
"""


def test_ordinary_text_of_the_environment_changes_nothing(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command continues from a folder and an environment whose words its values contain."""
    (folder / "placed.py").write_text(PLACED)
    monkeypatch.delitem(sys.modules, "placed", raising=False)
    place = folder / "Google Drive" / "project_1"
    place.mkdir(parents=True)
    command = [
        "model._target_=placed.Net",
        f"model.data_dir='{place}/data of john_smith'",
        "data._target_=placed.Digits",
        *ONE_TRIAL,
        f"output_dir={folder / 'out'}",
    ]
    first = cli(*command)
    assert first.status == 0, first.err
    best = folder / "out" / "best"
    written = (best / "none.yaml").read_text()
    monkeypatch.chdir(place)
    ordinary = {
        "PWD": str(place),
        "OLDPWD": "/elsewhere/Google Drive/project_1",
        "DB_PASSWORD": "project_1",
        "MODEL_TOKEN": "placed.Digits",
        "PIP_INDEX_URL": "https://john_smith@corp/simple",
    }
    for name, value in ordinary.items():
        monkeypatch.setenv(name, value)
    again = cli(*command)
    assert again.status == 0, again.err
    assert (best / "none.yaml").read_text() == written
    assert "***" not in first.out + first.err + again.out + again.err + written
    assert "oc.env" not in first.out + again.out + written
    assert [path for path, text in texts(folder / "out").items() if b"Google ***" in text or b"/***" in text] == []
    module = sys.modules["placed"].Net.load_from_checkpoint(best / "none.ckpt")
    assert module.hparams.data_dir == f"{place}/data of john_smith"


COUNTED = """
from user_module import Digits, LitNet

AUTH = "basic"

class Net(LitNet):
    def __init__(self, token, api_key, width=4, lr=1e-3, dropout=0.5):
        super().__init__(width, lr, dropout)
        self.auth = AUTH
"""


def test_a_setting_with_the_name_of_a_secret_is_compared(cli: Cli, folder: Path) -> None:
    """A renewed key is no difference."""
    (folder / "counted.py").write_text(COUNTED)
    shared = ["model._target_=counted.Net", "data._target_=counted.Digits", *ONE_TRIAL, "output_dir=out"]
    first = cli(*shared, "+model.token=cls", f"+model.api_key={SECRET}")
    assert first.status == 0, first.err
    other = cli(*shared, "+model.token=mean", f"+model.api_key={SECRET}")
    assert other.status == 2
    assert "model.token must be the same as when study" in other.err
    again = cli(*shared, "+model.token=cls", "+model.api_key=renewed-4712")
    assert again.status == 0, again.err
    (folder / "counted.py").write_text(COUNTED.replace("basic", "none"))
    sys.modules.pop("counted")
    changed = cli(*shared, "+model.token=cls", f"+model.api_key={SECRET}")
    assert (changed.status, "counted.AUTH" in changed.err) == (2, True), changed.err


def test_a_number_is_referred_to_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["dropsearch", "+model.pin_code=1", "+model.password=4711", "+model.token=512"])
    found = commands(composed(), None, {})
    *_, pin, word, token = shlex.split(found["continue"])
    assert (pin, token) == ("+model.pin_code=1", "+model.token=512")
    monkeypatch.setenv("DROPSEARCH_MODEL_PASSWORD", "4711")
    assert plain(composed(word))["model"]["password"] == 4711
    assert without_secrets({"password": 4711}, "model") == {"password": word.partition("=")[2].strip("'")}


def test_a_failure_to_connect_does_not_show_the_password(cli: Cli) -> None:
    ended = cli(f"study.storage=postgresql://ann:{SECRET}@127.0.0.1:9/db", "tracking=none")
    assert ended.status == 2
    assert 'got "postgresql://ann:***@127.0.0.1:9/db"' in ended.err
    assert SECRET not in ended.out + ended.err


@pytest.mark.parametrize("override", ["study.storge", "study.n_trials", "+model.password"])
def test_a_refused_override_does_not_show_the_password(cli: Cli, override: str) -> None:
    ended = cli(f"{override}=postgresql://ann:{SECRET}@host/db")
    assert ended.status == 2
    assert SECRET not in ended.out + ended.err


def secret_config() -> Config:
    return composed(f"study.storage=postgresql://ann:{SECRET}@host/db", f"tracking.uri=http://{SECRET}@host")


def test_commands_name_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [f"study.storage=postgresql://ann:{SECRET}@host/db", f"+model.api_key={SECRET}", "seed=3"]
    monkeypatch.setattr("sys.argv", ["dropsearch", *given])
    found = commands(secret_config(), "dropout", {"tracking_uri": "postgresql://ann:***@host/db"})
    assert SECRET not in str(found)
    assert shlex.split(found["continue"])[3:] == [
        "study.storage=${oc.env:DROPSEARCH_STUDY_STORAGE}",
        "+model.api_key=${oc.env:DROPSEARCH_MODEL_API_KEY}",
        "seed=3",
    ]
    assert found["mlflow"].endswith('--backend-store-uri "$MLFLOW_TRACKING_URI"')


def test_a_printed_command_takes_the_value_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["dropsearch", f"study.storage=postgresql://ann:{SECRET}@host/db"])
    found = commands(secret_config(), None, {})
    word = shlex.split(found["continue"])[-1]
    monkeypatch.setenv("DROPSEARCH_STUDY_STORAGE", f"postgresql://ann:{SECRET}@host/db")
    assert composed(word).study.storage == f"postgresql://ann:{SECRET}@host/db"


def test_best_yaml_refers_to_the_environment(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    text = best_yaml(
        "dropout", make_result(spec=make_spec(0, phase="confirm", configuration=3)), secret_config(), tmp_path
    )
    assert SECRET not in text
    assert re.search(r"storage: \$\{oc.env:DROPSEARCH_STUDY_STORAGE,null\}", text)
    read = OmegaConf.create(text)
    assert (read.study.storage, read.tracking.uri) == (None, None), "a retraining needs neither"

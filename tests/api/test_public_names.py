"""The public face of the package: its names, its version, and what it needs installed."""

from __future__ import annotations

import inspect
import pydoc
import subprocess
import sys
import tomllib
from pathlib import Path

import lightning
import pytest

import dropsearch
from dropsearch.core.errors import EXTRAS, MissingExtraError, require
from dropsearch.models import Classifier, build_net
from tests.packaging.programs import ROOT

TOOLS = ("dropout_sites", "check_dropout", "insert_dropout", "set_rates", "MCDropout", "Site")

WITHOUT_EXTRAS = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
{code}
"""


def without(refused: set[str], code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a Python in which some libraries cannot be imported."""
    program = WITHOUT_EXTRAS.format(refused=refused, code=code)
    return subprocess.run([sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True, check=False)


def project() -> dict[str, list[str]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_dir_lists_the_public_names_only():
    assert sorted(dir(dropsearch)) == sorted([*dropsearch.__all__, "__version__"])


@pytest.mark.parametrize("name", dropsearch.__all__)
def test_every_public_name_is_there_and_documented(name: str):
    found = getattr(dropsearch, name)
    assert inspect.getdoc(found), name
    assert found.__name__ == name


def test_help_shows_the_function():
    assert inspect.isfunction(dropsearch.search)
    assert "n_trials: Total number of trials per arm" in pydoc.render_doc(dropsearch.search, renderer=pydoc.plaintext)


def test_an_input_error_is_a_value_error():
    with pytest.raises(ValueError, match="make_module must be a function"):
        dropsearch.search(None, None)  # type: ignore[arg-type]
    assert issubclass(dropsearch.InputError, ValueError)


def test_types_are_marked_as_shipped():
    assert (Path(dropsearch.__file__).parent / "py.typed").read_text() == ""


@pytest.mark.slow
def test_the_version_is_printed_without_heavy_imports(tmp_path: Path):
    code = "sys.argv = ['dropsearch', '--version']; from dropsearch.__main__ import main; main()"
    ended = without({"torch", "hydra", "optuna", "mlflow"}, code, tmp_path)
    assert (ended.returncode, ended.stdout) == (0, f"dropsearch {dropsearch.__version__}\n"), ended.stderr


@pytest.mark.slow
def test_the_tools_and_a_loaded_classifier_need_only_torch_and_lightning(tmp_path: Path):
    kept = Classifier(build_net({"name": "cnn", "input_shape": [1, 8, 8], "classes": 3, "dropout": 0.2}))
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(kept)
    trainer.save_checkpoint(tmp_path / "best.ckpt")
    code = f"""
import torch, dropsearch, warnings
for name in {TOOLS!r}:
    getattr(dropsearch, name)
module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
print(len(dropsearch.dropout_sites(module, torch.ones(2, 2))))
sys.meta_path.pop(0)  # what Lightning imports to load a checkpoint, where it is installed
warnings.simplefilter("ignore")
from dropsearch.models import Classifier
print(Classifier.load_from_checkpoint("best.ckpt").net.rates["block1.dropout"])
print([name for name in ("hydra", "omegaconf", "optuna", "mlflow") if name in sys.modules])
"""
    ended = without({module for modules in EXTRAS.values() for module in modules}, code, tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "1\n0.2\n[]\n"), ended.stderr


@pytest.mark.slow
def test_the_command_line_names_the_missing_extra(tmp_path: Path):
    code = "import importlib.util as u; real = u.find_spec\n"
    code += "u.find_spec = lambda name: None if name == 'optuna' else real(name)\n"
    code += "sys.argv = ['dropsearch']; from dropsearch.__main__ import main; main()"
    ended = without(set(), code, tmp_path)
    expected = (
        'dropsearch: the command line needs optuna (not installed): pip install "dropsearch[search]", '
        'or "dropsearch[all]" for everything\n'
    )
    assert (ended.returncode, ended.stderr) == (2, expected)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dropsearch.core.errors.find_spec", lambda name: None if name == "mlflow" else name)
    require("dropsearch.search", "search", "report", "data")
    with pytest.raises(MissingExtraError, match=r'tracking=mlflow needs mlflow.*pip install "dropsearch\[mlflow\]"'):
        require("tracking=mlflow", "mlflow")
    assert issubclass(MissingExtraError, ImportError)


def test_every_extra_is_one_of_the_project():
    assert set(EXTRAS) < set(project())
    named = {
        extra: {requirement.split(">=")[0].partition("[")[0] for requirement in project()[extra]} for extra in EXTRAS
    }
    packages = {"hydra": "hydra-core", "omegaconf": "hydra-core", "sklearn": "scikit-learn", "PIL": "pillow"}
    needed = {extra: {packages.get(module, module) for module in modules} for extra, modules in EXTRAS.items()}
    assert named == needed

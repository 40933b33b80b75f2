"""The wheel: what it holds, and that it runs what the pages tell to type, in little, and prints what they show."""

from __future__ import annotations

import json
import re
import shlex
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MLFLOW_WARNINGS, SRUN
from tests.little_example import little_example
from tests.packaging.programs import ROOT, run

pytestmark = pytest.mark.slow

GUIDE, OWN_MODULE, README, EXAMPLES = "docs/guide.md", "docs/user-module.md", "README.md", "examples/user_module.py"
NOTEBOOK, WHEEL = "examples/search.ipynb", "pyproject.toml"
LITTLE = (
    "study.n_trials=1",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "confirm.top_k=1",
    "confirm.seeds=1",
    "tracking=none",
    "engine=sequential",
    "evidence=off",
)
BUILT_IN = (
    "study.n_trials=2",
    "arms=[none,dropout]",
    "data.train_size=300",
    "trainer.max_epochs=1",
    "confirm.top_k=1",
    "confirm.seeds=2",
    "evidence.severities=1",
    "evidence.monte_carlo=[1,2]",
    "engine=sequential",
    "tracking=none",
)
"""A search of a built-in model on data that the wheel brings."""
NUMBERS = {"n_trials": 1, "max_epochs": 1, "confirm_seeds": 1}


@dataclass(frozen=True)
class Step:
    """Something that a page tells to type, with what it shows of the answer."""

    page: str
    kind: str
    text: str
    shown: str | None = None
    words: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{Path(self.page).stem}: {' '.join(self.words) or self.text.strip().splitlines()[-1]}"


def steps_of(page: str) -> Iterator[Step]:
    """Yield the steps of a page in order: a block of text behind a step is its answer."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    for (language, text), (following, answer) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        shown = answer if following == "text" else None
        if language == "python":
            yield Step(page, language, little(text, all_arms=page == README), shown)
        elif language == "bash" and page != README:
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(line)
                assert words[:3] == ["python", "-m", "dropsearch"], line
                given = [re.sub("^budget=.*", "budget=8 trials", word) for word in words[3:]]
                arms = () if "arms=" in line else ("arms=[none,dropout]",)
                yield Step(page, "command", line, shown, [*given, *(() if "task=sites" in words else (*LITTLE, *arms))])


def little(code: str, *, all_arms: bool = False) -> str:
    """Return code with small numbers in the place of those that a reader would take, and two arms unless it has all."""
    few = "confirm_top_k=1, confirm_seeds=1, overrides=['evidence=off']"
    few += "" if all_arms else ", arms=['none', 'dropout']"
    for name, number in NUMBERS.items():
        code = re.sub(rf"\b{name}=\d+", f"{name}={number}", code)
    code = code.replace("output_dir=", f"{few}, engine='sequential', output_dir=")
    return code.replace("confirm_seeds=1,\n", f"{few},\n")


def cells_of(notebook: str) -> Iterator[Step]:
    """Yield the code of a notebook, cell by cell."""
    for cell in json.loads((ROOT / notebook).read_text())["cells"]:
        if cell["cell_type"] == "code":
            yield Step(notebook, "python", little("".join(cell["source"])))


STEPS = [
    *(step for page in (GUIDE, OWN_MODULE, README) for step in steps_of(page)),
    *cells_of(NOTEBOOK),
    Step(EXAMPLES, "script", "user_module.py"),
    Step(WHEEL, "command", "a built-in model", words=[*BUILT_IN]),
]


@dataclass(frozen=True)
class Played:
    """What came of all steps."""

    folder: Path
    package: Path
    answers: list[dict[str, str]]

    def output(self, page: str) -> str:
        return "".join(answer["out"] for step, answer in zip(STEPS, self.answers, strict=True) if step.page == page)


@pytest.fixture(scope="module")
def played(bin_folder: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Played:
    """All steps, run by the installed package in one process."""
    home, strictly = tmp_path_factory.mktemp("pages"), list(filters(pytestconfig))
    asked = [asked_of(place, home, [] if step.page == README else strictly) for place, step in enumerate(STEPS)]
    program = (ROOT / "tests" / "packaging" / "player.py").read_text()
    told = json.loads(run(str(bin_folder / "python"), "-c", program, cwd=home, given=json.dumps(asked)))
    return Played(home, Path(told["package"]), told["told"])


def asked_of(place: int, home: Path, filters: list[tuple[str, str]]) -> dict[str, Any]:
    """Return a step as the player takes it; its folder, with the example in it, is the page's, or a command's own."""
    step = STEPS[place]
    if any(word.startswith("study.warm_start=") for word in step.words):
        place = max(n for n in range(place) if STEPS[n].kind == "command")  # it begins with what that command found
    folder = home / f"{Path(step.page).stem}{place if step.kind == 'command' else ''}"
    folder.mkdir(exist_ok=True)
    example = little_example()
    (folder / "user_module.py").write_text(little(example) if step.kind == "script" else example)
    for path, content in re.findall(r"^```yaml\n# (\S+\.yaml)\n(.*?)^```", (ROOT / step.page).read_text(), re.M | re.S):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return {"folder": str(folder), "kind": step.kind, "text": step.text, "words": step.words, "filters": filters}


def filters(config: pytest.Config) -> Iterator[tuple[str, str]]:
    """Yield action and message of each filter of warnings that our own tests run with."""
    for line in (*config.getini("filterwarnings"), *MLFLOW_WARNINGS, SRUN):
        action, message, *_ = (*line.split(":"), "")
        yield action, message


def test_the_pages_have_steps_of_every_kind() -> None:
    counts = {page: [step.kind for step in STEPS if step.page == page] for page in (GUIDE, OWN_MODULE, README)}
    assert (counts[GUIDE].count("command"), counts[GUIDE].count("python")) == (6, 12)
    assert (counts[OWN_MODULE].count("command"), counts[OWN_MODULE].count("python")) == (6, 1)
    assert counts[README].count("python") == 3
    examples = sorted(path.name for path in (ROOT / "examples").iterdir())
    assert examples == ["cluster", "lora.py", "search.ipynb", "user_module.py"]


def test_it_holds_the_package_its_configuration_and_the_licence_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if not name.endswith("/")]
    here = [p.relative_to(ROOT) for folder in ("dropsearch", "conf") for p in (ROOT / folder).rglob("*")]
    expected = {p.as_posix() for p in here if p.suffix in (".py", ".typed", ".html", ".css", ".js")}
    expected |= {f"dropsearch/{p.as_posix()}" for p in here if p.suffix == ".yaml"}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_source_distribution_holds_what_it_takes_to_test_it(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "pyproject.toml", "conf/config.yaml", "scripts/test", "scripts/constraints.txt"}
    assert wanted | {"tests/packaging/test_examples.py", "dropsearch/cli.py"} <= names


def test_the_installed_program_shows_the_configuration_that_it_brings(bin_folder: Path, tmp_path: Path) -> None:
    shown = run(str(bin_folder / "dropsearch"), "--cfg", "job", "model=cnn", cwd=tmp_path)
    assert "channels:" in shown
    assert list(tmp_path.iterdir()) == []


def test_it_searches_and_confirms_a_built_in_model(played: Played) -> None:
    assert "Use " in played.output(WHEEL)
    (found,) = played.folder.glob("pyproject*/outputs/mlp-digits/results.json")
    results = json.loads(found.read_text())
    assert [len(arm["trials"]) for arm in results["arms"].values()] == [2, 2]
    assert [len(arm["winner"]["test_acc"]) for arm in results["arms"].values()] == [2, 2]


def test_what_runs_is_the_installed_package(played: Played, bin_folder: Path) -> None:
    assert played.package.is_relative_to(bin_folder.parent)


@pytest.mark.parametrize("place", range(len(STEPS)), ids=[step.name for step in STEPS])
def test_it_runs_and_prints_what_is_shown(played: Played, place: int) -> None:
    step, answer = STEPS[place], played.answers[place]
    assert not answer["problem"], answer["problem"]
    if step.shown is not None:
        assert answer["out"] == step.shown
    elif step.page == GUIDE and step.kind == "python" and "dropsearch.search" not in step.text:
        assert answer["out"] == ""


def test_a_search_of_the_guide_inserts_dropout_and_finds_its_rate(played: Played) -> None:
    found = played.folder.glob("guide*/outputs/LitNet-Digits/best/dropout.yaml")
    assert ["features.2" in each.read_text() for each in found].count(True) == 1
    assert "{'features.2': " in played.output(GUIDE)
    assert "{'layers.2': " in played.output(GUIDE)


def test_a_search_of_the_other_pages_tells_its_tables_and_its_rates(played: Played) -> None:
    assert played.output(OWN_MODULE).count("To load the model to keep") >= 3
    assert "Arms: less val_loss is better" in played.output(OWN_MODULE)
    assert "rates to train with: {" in played.output(EXAMPLES)
    assert played.output(README)

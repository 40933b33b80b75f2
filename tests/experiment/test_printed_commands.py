"""Every command that a run prints, writes into its reports or beside its models does what it says."""

from __future__ import annotations

import html
import io
import json
import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from dropsearch import SearchResult
from dropsearch.core.override_text import override
from tests.experiment.conftest import Cli, shell_lines

NETS = "tests.user_modules.constructed"
TAGS = ["it's", "a b", "null", "1", "=x", "ü,漢: {}", "\\"]
TITLE = 'it\'s "mine" = 1, {ü: ${HOME}} \\ 漢 $x `y` #'
SHORT = (
    f"data._target_={NETS}.Points", "arms=[dropout]", "study.n_trials=1", "trainer.max_epochs=1", "confirm.top_k=1",
    "confirm.seeds=1", "engine=sequential", "trainer.accelerator=cpu", "evidence=off",
)  # fmt: skip
HELD = (
    f"model._target_={NETS}.Held",
    override("model.net", {"_target_": f"{NETS}.Hidden", "hidden": 12}),
    override("model.optimizer", {"_target_": "torch.optim.SGD", "_partial_": True, "momentum": 0.5}),
    override("model.title", TITLE),
    override("model.tags", TAGS),
)
ALIKE = ("~arm_args.batchnorm", "~arm_args.both", "arms=[none,dropout]")


def executed(cli: Cli, command: str) -> str:
    """Execute a command in this process; return what it printed."""
    words = shlex.split(command)
    if words[1] == "-c":
        with redirect_stdout(io.StringIO()) as printed:
            exec(words[2], {"__name__": "__main__"})
        return printed.getvalue()
    assert words[1:3] == ["-m", "dropsearch"], command
    ended = cli(*words[3:])
    assert ended.status == 0, ended.err
    return ended.out


def test_a_module_with_seeds_is_loaded(cli: Cli, tmp_path: Path) -> None:
    ended = cli(f"model._target_={NETS}.Seeded", *SHORT, "confirm.seeds=3", "tracking=none", "output_dir=out")
    assert ended.status == 0, ended.err
    (reload,) = [command for command in shell_lines(ended.out) if " -c " in command]
    best = SearchResult.load("out").summary.arms["dropout"].winner.best.spec  # type: ignore[union-attr]
    assert executed(cli, reload) == f"Seeded({best.seed}, {best.seed})\n"


def test_why_no_command_loads_the_model_stands_in_its_place(cli: Cli, tmp_path: Path) -> None:
    words = (f"model._target_={NETS}.Weighted", f"data._target_={NETS}.Weighing", *SHORT[1:])
    ended = cli(*words, "tracking=none", "output_dir=out")
    assert ended.status == 0, ended.err
    said = (
        f"No command loads the model to keep: load_best needs weight of {NETS}.Weighted, which the results do not "
        "contain: pass make_module=... To train it again:"
    )
    page = re.sub(r"<[^>]*>", " ", html.unescape((tmp_path / "out" / "report.html").read_text()))
    report = (tmp_path / "out" / "report.md").read_text().replace("\\", "")
    for text in (ended.out, report, page):
        assert said in " ".join(text.split())
    assert "reload" not in json.loads((tmp_path / "out" / "results.json").read_text())["commands"]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ((f"model._target_={NETS}.OfGroup", "model.optimizer=${optimizer}", SHORT[0], "optimizer=sgd"), "OfGroup(sgd)"),
        (("model=mlp", "model.norm=batch", "batchnorm.replace=identity", "model.hidden=[4]", *ALIKE), "Identity()"),
    ],
)
def test_what_was_trained_again_is_loaded(words: tuple[str, ...], shown: str, cli: Cli) -> None:
    ended = cli("task=retrain", "retrain.arm=dropout", *words, "trainer.max_epochs=1", "trainer.accelerator=cpu")
    assert ended.status == 0, ended.err
    (reload,) = shell_lines(ended.out)
    assert shown in executed(cli, reload)


def test_every_command_does_what_it_says(cli: Cli, tmp_path: Path) -> None:
    ended = cli(*HELD, *SHORT, "output_dir=the run", "study.name=a study")
    assert ended.status == 0, ended.err
    out = tmp_path / "the run"
    page = re.findall(r"<pre[^>]*><code>(.*?)</code>", (out / "report.html").read_text(), re.DOTALL)
    found = {
        "terminal": ended.out,
        "report.md": (out / "report.md").read_text(),
        "report.html": html.unescape("\n".join(page)),
        "results.json": "\n".join(json.loads((out / "results.json").read_text())["commands"].values()),
    }
    commands = set(shell_lines(found["terminal"]))
    assert {place: set(shell_lines(text)) for place, text in found.items()} == dict.fromkeys(found, commands)
    (browse,) = [command for command in commands if " -m mlflow ui " in command]
    address = shlex.split(browse)[-1]
    assert (tmp_path / address.removeprefix("sqlite:///")).samefile(out / "mlflow.db")
    (reload,) = [command for command in commands if " -c " in command]
    assert executed(cli, reload) == f"Held({TITLE!r}, {TAGS!r})\n"
    (retrain,) = [command for command in commands if "--config-name" in command]
    (beside,) = [shell_lines(path.read_text()[2:])[0] for path in (out / "best").glob("*.yaml")]
    assert beside.partition(" ")[2] == retrain.partition(" ")[2]
    for nested in shell_lines(executed(cli, retrain)):
        assert "load_best" in nested
        assert executed(cli, nested).startswith(f"Held({TITLE!r}")
    (again,) = [command for command in commands if "study.n_trials" in command]
    assert "2/0/0" in executed(cli, again.replace("study.n_trials=1", "study.n_trials=2"))
    (kept,) = (out / "best").glob("*.yaml")
    text, files = kept.read_text(), sorted(tmp_path.rglob("*"))
    for old, new in (
        (f"_target_: {NETS}.Points", "_target_: shutil.rmtree"),
        ("_target_: torch.optim.SGD", "_target_: os.getcwd"),
        ("- schema\n", "- schema\n- other\n"),
        ("  run:\n", "  searchpath:\n  - file:///other\n  run:\n"),
    ):
        assert old in text
        kept.write_text(text.replace(old, new))
        ended = cli(*shlex.split(retrain)[3:])
        assert ended.status == 2, ended.out
        assert "must build only what its run built" in ended.err
        assert sorted(tmp_path.rglob("*")) == files

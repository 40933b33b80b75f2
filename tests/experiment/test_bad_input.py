"""What is told to somebody who gives what cannot be used: one line, status 2, and nothing is left behind."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from dropsearch.config.messages import known_keys
from tests.config.generated_overrides import OF_MODELS, WORDS, override
from tests.experiment.conftest import LIGHT, Cli, Ended

SMALL = [word for word in LIGHT if word != "tracking=none"]
COMMAND_LINE = [
    ("model=mlpp", 'model must be one of cnn, mlp, rnn, transformer, got "mlpp" (did you mean "mlp"?)'),
    ("data=digts", '(did you mean "digits"?)'),
    ("experiment=nope", "experiment must be one of"),
    ("modle=cnn", '"modle" is not a key of the configuration (did you mean "model"?)'),
    ("study.n_trails=3", '(did you mean "study.n_trials"?)'),
    ("max_epochs=3", '(did you mean "trainer.max_epochs"?)'),
    (
        "+study.foo=3",
        '"study.foo" is not a key of the configuration (study has allow_code_changes, n_trials, name, repeats, ',
    ),
    ("++foo=3", '"foo" is not a key'),
    ("study.n_trials=abc", "study.n_trials has the wrong type: Value 'abc' of type 'str'"),
    ("study.n_trials=1.5", "study.n_trials has the wrong type"),
    ("study.n_trials=null", "study.n_trials has the wrong type"),
    ("study.n_trials=", "study.n_trials has the wrong type"),
    ("study.n_trials=0", "study.n_trials must be at least 1, got 0"),
    ("trainer.max_epochs=inf", "trainer.max_epochs has the wrong type"),
    ("seed=nan", "seed has the wrong type"),
    ("space.high=1.2", "space.high must be at most 0.95, got 1.2 (see conf/space/per_layer.yaml)"),
    ("space.lr=3", "space.lr has the wrong type"),
    ("space.params={data.batch_size:choice(32,64)}", "space.params must name keys of model or optimizer, because all"),
    (
        "space.params={model.hidden:choise([8],[9])}",
        "space.params must contain choice(A,B), interval(LOW,HIGH), range(",
    ),
    ("space.params.model.hidden=choice([8])", "a choice needs at least two values"),
    ("-m space.params={lr:choice(1,2)}", "space.params must leave out lr, which is searched anyway"),
    ("space=null", "GROUP=OPTION must name an option of the group"),
    ("model=[mlp,cnn]", "model must be one option, got several"),
    ("arms=[]", "arms must include at least one of"),
    ("arms=null", "arms has the wrong type"),
    ("arms=dropout", "arms has the wrong type"),
    ("arms=[none,none]", "arms must include each arm once"),
    ("model.hidden=[a]", "model.hidden[0] must be an integer, got a (see conf/model/mlp.yaml)"),
    (
        "model=transformer model.heads=two",
        "model.heads must be an integer, got two (see conf/model/transformer.yaml)",
    ),
    (
        "model=transformer model.width=abc",
        "model.width must be an integer, got abc (see conf/model/transformer.yaml)",
    ),
    ("~model", "model._target_ must be set, but is missing"),
    ("~study.n_trials", "study.n_trials must have a value"),
    ("study.name=${nope}", "study.name must be a value or refer to an existing key"),
    ("study.n_trials", 'an override must be KEY=VALUE or GROUP=OPTION, got "study.n_trials"'),
    ("study..n_trials=3", "an override must be KEY=VALUE"),
    ("=3", "GROUP=OPTION must name an option"),
    ("study.name=it's", "an override must be KEY=VALUE"),
    ("study.name=a\nb", 'an override must be KEY=VALUE or GROUP=OPTION, got "study.name=a b"'),
    ("study.name='a\nb'", "study.name must be a name on one line, got 'a\\nb'"),
    ("", "an override must be KEY=VALUE"),
    ("--config-name nope", "--config-name must name a file"),
    ("--config-dir nope", "--config-dir must be a folder of configurations"),
    ("--help model=foo", 'model must be one of cnn, mlp, rnn, transformer, got "foo"'),
    ("-m model=mlp,foo", 'got "foo"'),
    ("-m study.n_trials=0,1", "study.n_trials must be at least 1, got 0"),
    ("-m seed=0,1", "study.name must differ between the jobs of a sweep"),
    ("task=retrain retrain.arm=dropout retrain.rates={a:2}", "retrain.rates must be in [0, 0.95], got 2.0 for a"),
    ("task=retrain retrain.arm=dropout retrain.rates={a:[1]}", "retrain.rates must be in [0, 0.95], got [1] for a"),
    ("model.hidden=[99999999999999]", "model.hidden[0] must be at most 16384, got 99999999999999"),
    ("-m model.hidden=[8],[0]", "model.hidden[0] must be at least 1, got 0"),
    ("task=retrain", "retrain.arm must be one of"),
    ("evidence=yes", 'evidence must be one of off, on, got "yes"'),
    ("evidence=off task=evidence", "evidence must be on with task=evidence, got off"),
    ("evidence=off evidence.single_sites=true", "evidence must be on with evidence.single_sites=true, got off"),
    ("evidence.monte_carlo=[5,1]", "evidence.monte_carlo must be increasing numbers from 1 to 10000, got [5, 1]"),
]

OPTIONS = [
    ("--foo", "options must be those of Hydra (unrecognized arguments: --foo)"),
    ("--multirn model=mlp,cnn", '(did you mean "--multirun"?)'),
    ("--cfg", "argument --cfg/-c: expected one argument"),
    ("--info nope", "invalid choice: 'nope'"),
    ("-x", "unrecognized arguments: -x"),
    ("--exp=config.pickle", "--exp must be left out"),
    ("output_dir=\udcc3\udcbc", r"got 'output_dir=\udcc3\udcbc': set LC_ALL=C.UTF-8"),
    ("--experimental-rerun config.pickle", "because it unpickles a file"),
]

SURROUNDINGS = [
    ("data=mnist", "data mnist must be fetched before use, but data/mnist"),
    ("data=spoken_digits data.root=away", "run `scripts/fetch_data spoken_digits --root away`"),
    ("output_dir=file", 'output_dir must be a folder that can be written, got "file"'),
    ("output_dir=file/out", "file is not a folder): name another"),
    ("tracking.uri=http://127.0.0.1:9", "MLflow's server must be reachable, got http://127.0.0.1:9 (tracking.uri)"),
    ("tracking.uri=file:///tmp/x", "MLflow needs a database or a server"),
    ("tracking.uri=sqlite:///foreign.db", "it contains other tables (cats)"),
    ("tracking.uri=sqlite:///file/mlflow.db", "tracking.uri must be a folder that can be written"),
    ("study.storage=file", "study.storage must be a journal file that Optuna wrote"),
    ("study.storage=folder", 'study.storage must be a journal file that Optuna wrote, got "folder" (Is a directory)'),
    ("study.storage=file/x.log", "study.storage must lie in a folder that can be written"),
    ("study.storage=sqlite:///file", "file is not a database"),
    ("study.storage=sqlite:///foreign.db", "it contains other tables, such as cats"),
    ("study.storage=sqlite:///nowhere/x.db", "nowhere first"),
    ("study.storage=sqlite://", "an in-memory database is lost"),
    ("study.storage=nonsense://user:secret@host/x", 'got "nonsense://user:***@host/x"'),
]

LOADED = [
    ("data.batch_size=10000", "data.batch_size must be at most the 1078 training examples, got 10000"),
    ("data.train_size=100000", "data.train_size must be at most 1078"),
    ("data.val_fraction=0.9999", "data.val_fraction must leave a training example"),
    ("model.hidden=[] model.input_dropout=false", "arms must not name dropout, both for a model without dropout sites"),
    ("space.params={model.hidden:choice([8],[8,8])}", "space.params must not change the model's sites"),
    ("model=cnn model.hidden=[3]", 'model must name arguments of cnn, got "hidden": it takes activation, channels'),
    ("model.hiden=[3]", 'model must name arguments of mlp, got "hiden" (did you mean "hidden"?)'),
    ("data.name=digts", 'cifar10, spoken_digits; got "digts" (did you mean "digits"?)'),
    ("data.batch=3", 'data must name arguments of digits, got "batch"'),
    ("trainer.max_epoch=3", 'trainer must name arguments of the Trainer, got "max_epoch" (did you mean "max_epochs"?)'),
    ("space.params={model.hiden:choice([8],[9])}", 'must name arguments of mlp, got "hiden" (did you mean "hidden"?)'),
    ("monitor=val_los", "monitor must be"),
    (
        "model.hidden=[16384,16384,16384,16384,16384,16384,16384,16384] trainer.accelerator=cpu",
        "make its layers smaller",
    ),
    ("model=cnn model.channels=[16384,16384] model.kernel_size=63", "model=cnn must fit into"),
    ("model=transformer model.width=16384 model.layers=64", "model=transformer must fit into"),
    ("engine.name=nothing", "engine.name must be one of auto, "),
    (
        "task=retrain retrain.arm=dropout +retrain.rates={net.hiden1.dropout:0.5}",
        'got "net.hiden1.dropout" (did you mean "net.hidden1.dropout"?)',
    ),
    (
        "task=retrain retrain.arm=none +retrain.rates={net.hidden1.dropout:0.5}",
        "retrain.rates must be empty for arm none",
    ),
]


def is_refused(ended: Ended, message: str) -> None:
    assert ended.status == 2
    assert message in ended.err
    assert ended.err.startswith("dropsearch: ")
    assert ended.err.count("\n") == 1, "one line"
    assert ended.out == ""
    assert ended.left == [], "nothing is created"


def is_one_line(ended: Ended) -> bool:
    """Say whether a run was refused in one line that can be printed."""
    line = ended.err.removesuffix("\n")
    return ended.status == 2 and ended.out == "" and line.startswith("dropsearch: ") and line.isprintable()


def arguments(line: str) -> list[str]:
    """Split a line as a shell does, but for the cases that hold a blank or a quote of their own."""
    return [line] if "\n" in line or "'" in line or not line else line.split()


@pytest.mark.parametrize(("line", "message"), COMMAND_LINE)
def test_what_cannot_be_read_is_refused(cli: Cli, line: str, message: str):
    is_refused(cli(*arguments(line)), message)


@pytest.mark.parametrize(("line", "message"), OPTIONS)
def test_option_that_hydra_has_not_is_refused(cli: Cli, line: str, message: str):
    is_refused(cli(*line.split()), message)


def test_generated_overrides_end_in_one_line_and_leave_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    taken: list[object] = []
    monkeypatch.setattr("dropsearch.experiment.tasks.run", lambda config, _: taken.append(config) or 0)
    draw, keys = random.Random(7), sorted({*known_keys(), *OF_MODELS})
    words = [override(draw, keys) for _ in range(30)] + list(WORDS)
    for word in words:
        ended = cli(word)
        assert (ended.status, ended.err) == (0, "") or is_one_line(ended), (word, ended)
        assert ended.left == [], word
    assert 0 < len(taken) < len(words) / 2


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """A file, a folder and a database that are not what is looked for."""
    (tmp_path / "file").write_text("something else, which is longer than the header of a database" * 9)
    (tmp_path / "folder").mkdir()
    with closing(sqlite3.connect(tmp_path / "foreign.db")) as connection:
        connection.execute("CREATE TABLE cats (name)")
        connection.commit()
    return tmp_path


@pytest.mark.parametrize(("line", "message"), SURROUNDINGS)
def test_what_cannot_be_used_is_refused(cli: Cli, traps: Path, line: str, message: str):
    is_refused(cli(*arguments(line)), message)


@pytest.mark.parametrize("index", [2, 4, 6, 10, 12])
def test_plan_looks_at_the_surroundings_too(cli: Cli, traps: Path, index: int):
    line, message = SURROUNDINGS[index]
    is_refused(cli("task=plan", *arguments(line)), message)


@pytest.mark.parametrize(("line", "message"), LOADED)
def test_what_does_not_fit_the_data_or_the_model_is_refused(cli: Cli, line: str, message: str):
    is_refused(cli(*arguments(line)), message)


def test_a_gpu_that_is_not_there_is_refused(cli: Cli, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    is_refused(cli("trainer.accelerator=gpu"), "trainer.accelerator=gpu needs a CUDA device")


def test_a_corrupted_data_file_is_named_with_what_replaces_it(cli: Cli, tmp_path: Path):
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{part}-ubyte").write_bytes(b"broken")
    ended = cli("data=mnist")
    is_refused(ended, "data file data/mnist/train-images-idx3-ubyte must have 47040016 bytes, got 6")
    assert "run `scripts/fetch_data mnist` to replace it" in ended.err


def broken_first(path: Path) -> None:
    path.write_text('{"op_code": 1}\n')


def half_a_study(path: Path) -> None:
    path.write_text('{"op_code": 0, "worker_id": "a", "study_name": "s", "directions": [1]}\nnot an entry\n{}\n')


@pytest.mark.parametrize("write", [broken_first, half_a_study])
def test_a_journal_that_is_broken_within_is_refused(cli: Cli, tmp_path: Path, write: Callable[[Path], None]):
    write(tmp_path / "x.log")
    ended = cli("study.storage=x.log", *SMALL)
    assert ended.status == 2
    assert 'study.storage must be a journal file that Optuna wrote, got "x.log"' in ended.err
    assert ended.err.count("\n") == 1
    assert set(ended.left) <= {"x.log.lock"}


def test_the_check_of_a_storage_leaves_it_as_it_was(cli: Cli, traps: Path):
    before = (traps / "foreign.db").read_bytes()
    cli("study.storage=sqlite:///foreign.db")
    assert (traps / "foreign.db").read_bytes() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("study.storage=/dev/zero", "study.storage must be a file, got"),
        ("study.storage=/dev/null", "which is a device or a pipe"),
        ("study.storage=/dev/full", "which is a device or a pipe"),
        ("study.storage=sqlite:////dev/zero", "which is a device or a pipe"),
        ("study.storage=pipe", "which is a device or a pipe"),
        (f"study.storage={'x' * 300}", "study.storage cannot be used (File name too long)"),
        (f"output_dir={'x' * 300}", "output_dir must have parts of at most 255 bytes"),
        (f"study.name={'x' * 300}", "study.name must have at most 200 bytes"),
        ("study.name='a\u202eb'", "study.name must be a name on one line, got 'a\\u202eb'"),
        ("study.name='a\x1bb'", "study.name must be a name on one line, got 'a\\x1bb'"),
        ("study.name=../a", "study.name must be a name, or names between slashes"),
        (
            "study.storage=sqlite:///one.db tracking.uri=sqlite:///./one.db",
            "study.storage must be another database than",
        ),
        ("study.storage=torn.log", "(line 3 is not a journal entry)"),
        ("study.storage=fieldless.log", "(line 2 is not a journal entry)"),
    ],
)
def test_what_hangs_or_has_no_end_is_refused(cli: Cli, tmp_path: Path, line: str, message: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    made = '{"op_code": 0, "worker_id": "a", "study_name": "s", "directions": [1]}\n'
    other = made.replace('"s"', '"t"')
    (tmp_path / "torn.log").write_text(f"{made}{other}nonsense\n{made}")
    (tmp_path / "fieldless.log").write_text(made + '{"op_code": 4, "worker_id": "a"}\n')
    is_refused(cli(*SMALL, *line.split()), message)


def test_an_unwritable_lock_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "study.log").write_text('{"op_code": 0, "worker_id": "a", "study_name": "s", "directions": [1]}\n')
    (tmp_path / "study.log.lock").mkdir()
    is_refused(cli("study.storage=study.log", *SMALL), "study.log.lock: Is a directory")

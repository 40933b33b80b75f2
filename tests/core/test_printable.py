"""Passwords are masked, control characters are shown as escapes, and messages have one line."""

from __future__ import annotations

import ast
import os
import pty
import termios
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dropsearch
from dropsearch.core.errors import InputError, RunError, first_cause
from dropsearch.core.printable import (
    LONGEST,
    comparable_values,
    is_secret_key,
    masked,
    masked_by_form,
    masked_if_whole,
    masked_values,
    one_line,
    printable,
    remember_secrets,
    tell,
)

SECRETS = [
    ("postgresql://ann:hunter2@host:5432/db", "postgresql://ann:***@host:5432/db"),
    ("postgresql://ann:hun/ter2@host/db", "postgresql://ann:***@host/db"),
    ("postgresql://ann:hun ter2@host/db", "postgresql://ann:***@host/db"),
    ("mysql+pymysql://:hunter2@host", "mysql+pymysql://:***@host"),
    ("https://hunter2@host/mlflow", "https://***@host/mlflow"),
    ("https://host/x?token=hunter2&page=1", "https://host/x?token=***&page=1"),
    ("postgresql:///db?user=ann&password=hunter2", "postgresql:///db?user=ann&password=***"),
    ("mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BPWD%3Dhunter2", "mssql+pyodbc:///?odbc_connect=***"),
    ("cannot reach postgresql://ann:hunter2@host/db, gave up", "cannot reach postgresql://ann:***@host/db, gave up"),
    ("AWS_SECRET_ACCESS_KEY=hunter2 and HF_TOKEN=hunter2", "AWS_SECRET_ACCESS_KEY=*** and HF_TOKEN=***"),
    ("{'api_key': 'hunter2', 'width': 3}", "{'api_key': ***, 'width': 3}"),
    ("model.password=hunter2", "model.password=***"),
    ("mysql://ann:12345/hunter2@host/db", "mysql://ann:***@host/db"),
    ("http://host:5000/a@b and http://ann:hunter2@host", "http://host:5000/a@b and http://ann:***@host"),
    ("https://host/x?X-Amz-Signature=hunter2&y=1", "https://host/x?X-Amz-Signature=***&y=1"),
    ("Authorization: Bearer hunter2", "Authorization: ***"),
    ("{'Authorization': 'Basic hunter2'}", "{'Authorization': ***}"),
    ("curl -H Bearer hunter2hunter2hunter2", "curl -H Bearer ***"),
    ("tool --password hunter2 --n 3", "tool --password *** --n 3"),
    ("db_pass=hunter2, gitlab_token: hunter2", "db_pass=***, gitlab_token: ***"),
    ("data.hub=hf_hunter2hunter2hunter2", "data.hub=***"),
    ("got ghp_hunter2hunter2hunter2 from", "got *** from"),
    ("Cookie: session=hunter2", "Cookie: ***"),
    ("curl -u ann:hunter2 http://host and --user ann:hunter2", "curl -u ann:*** http://host and --user ann:***"),
    ("https://hooks.slack.com/services/T0/B0/hunter2", "https://hooks.slack.com/services/***"),
    (
        "SharedAccessSignature=hunter2 dsn='hunter2' webhook_url: hunter2",
        "SharedAccessSignature=*** dsn=*** webhook_url: ***",
    ),
    ("requests.get(auth=('ann', 'hunter2'))", "requests.get(auth=***)"),
    ("subscription-key=hunter2 encryption_key=hunter2", "subscription-key=*** encryption_key=***"),
]
HARMLESS = [
    "http://host:5000/page?mail=ann@host",
    "postgresql://ann@host/db",
    "sqlite:////folder/study.db",
    "Bearer of news --passes 3 author=Ann forward_pass=2 sk-learn git_token_count=3",
    "model.max_tokens=512 model.pad_token=0 model.bypass=1 passes=3",
    "study.storage=${oc.env:DROPSEARCH_STUDY_STORAGE} model.api_key=${oc.env:KEY}",
]


@pytest.mark.parametrize(("text", "shown"), SECRETS)
def test_secrets_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays(text: str) -> None:
    assert masked(text) == text


def test_remembered_secrets_are_masked_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropsearch.core.printable._known", {})
    remember_secrets(
        {
            "study": {"storage": "postgresql://ann:s%40fe-4711@host/db"},
            "model": {"api_key": ["planted-0815"], "width": 16, "password": "database", "token": "12345678"},
            "WANDB_API_KEY": "0123456789abcdef",
            "PWD": os.getcwd(),
            "headers": {"Authorization": "Basic c2VjcmV0"},
        }
    )
    assert masked("login s@fe-4711 failed, s%40fe-4711") == "login *** failed, ***"
    assert masked("no answer to planted-0815 or 0123456789abcdef or Basic c2VjcmV0") == "no answer to *** or *** or ***"
    plain = f"a database of 12345678 rows, width 16, on host, in {os.getcwd()}"
    assert masked(plain) == plain, "words and numbers also mean something else"


def test_a_long_number_that_is_a_password_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropsearch.core.printable._known", {})
    remember_secrets({"db": {"password": 47114715}, "token": 32000000, "pin": {"api_key": [815]}})
    assert masked("pw=47114715, 32000000 rows of 1471147150, 815") == "pw=***, 32000000 rows of 1471147150, 815"


ORDINARY = {
    "PWD": "/home/ann/Google Drive/project_1",
    "OLDPWD": "/elsewhere/aB3dEfGh1JkLmNoPqRs",
    "GOOGLE_APPLICATION_CREDENTIALS": "keys/service_2.json",
    "PRIVATE_KEY": "~/.ssh/id_rsa",
    "SSH_AUTH_SOCK": "/run/user/1000/keyring/ssh",
    "PIP_INDEX_URL": "https://john_smith@corp/simple",
    "GIT_AUTHOR_NAME": "john_smith",
    "KEYBOARD_LAYOUT": "us-international-1",
    "DEBIAN_KEYRING": "archive-keyring-2",
    "TOKENIZERS_PARALLELISM": "false-positive",
    "MONKEY": "capuchin-monkey-1",
    "GPG_KEY": "A035C8C19219BA821ECEA86B64E628F8D684696D",
    "EOS_TOKEN": "<|endoftext|>",
    "MODEL_PAD_TOKEN": "<|padding-1|>",
    "MAX_TOKEN": "10000000",
    "BASIC_AUTH": "disabled",
    "DB_PASSWORD": "project_1",
    "SESSION_TOKEN": "2024-01-15",
}
NAMED = {"PWD", "GOOGLE_APPLICATION_CREDENTIALS", "PRIVATE_KEY", "BASIC_AUTH", "DB_PASSWORD", "SESSION_TOKEN"}
"""Variables of a secret's name whose values are none."""
TEXTS = [
    "/home/ann/Google Drive/project_1/data",
    "/home/ann/project_1",
    "Drive/project_1 and project_1.csv",
    "/home/john_smith/out, of john_smith",
    "https://john_smith@corp/simple",
    "PWD=/home/ann/Google Drive/project_1",
    "{'PWD': '/home/ann'}",
    "train 10000000 rows until 2024-01-15, <|endoftext|> <|padding-1|> disabled",
    "us-international-1 archive-keyring-2 false-positive capuchin-monkey-1",
    "A035C8C19219BA821ECEA86B64E628F8D684696D",
    *ORDINARY.values(),
]


def test_an_ordinary_environment_changes_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropsearch.core.printable._known", {})
    remember_secrets({"study": {"name": "project_1"}, "data": {"root": "/x"}}, {**os.environ, **ORDINARY})
    assert [masked(text) for text in TEXTS] == TEXTS
    assert masked_values(ORDINARY["PWD"], "PWD") == ORDINARY["PWD"]
    paths = [value for value in os.environ.values() if os.path.exists(value)]
    assert [masked(path) for path in paths] == paths


@given(st.from_regex(r"/?[a-z]{1,9}(_[0-9]{1,3})?(/[a-z]{1,9}(_[0-9]{1,3})?){1,4}", fullmatch=True), st.data())
def test_no_path_is_remembered(path: str, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["PWD", "API_KEY", "HF_TOKEN", "MY_CREDENTIALS", "AUTH"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dropsearch.core.printable._known", {})
        remember_secrets({}, {name: path})
        assert masked(f"{path} {path}/data") == f"{path} {path}/data"


def test_a_secret_that_looks_like_a_name_is_masked_where_it_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropsearch.core.printable._known", {})
    remember_secrets({"parts": [{"api_key": "open-sesame-1"}]}, {"DB_PASSWORD": "project_1", "FOO": "project_1"})
    assert masked("login open-sesame-1, (project_1).") == "login ***, (***)."
    other = "/data/project_1/x project_12 my_project_1 project_1.csv"
    assert masked(other) == other


def test_each_run_forgets_the_secrets_of_the_run_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropsearch.core.printable._known", {})
    remember_secrets({"api_key": "planted-0815"})
    assert masked("planted-0815") == "***"
    remember_secrets({"api_key": "planted-0816"})
    assert masked("planted-0815 planted-0816") == "planted-0815 ***"


def test_the_last_word_alone_is_a_secret_behind_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropsearch.core.printable._known", {})
    remember_secrets({"auth": ["Token c2VjcmV0x", "hunter2-4711 of-ann-4712"]})
    assert masked("c2VjcmV0x and of-ann-4712") == "*** and of-ann-4712"


def test_form_is_the_same_in_any_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropsearch.core.printable._known", {})
    given = {"hub": "planted-0815", "cmd": "x planted-0815", "api_key": "planted-0815", "url": "a://b:planted-0815@c"}
    remember_secrets({}, {"HUB_TOKEN": "planted-0815"})
    formed = {**given, "api_key": "***", "url": "a://b:***@c"}
    assert masked_values(given, text=masked_by_form) == formed
    assert masked_values(given, text=masked_if_whole) == {**formed, "hub": "***"}


def test_values_are_masked_by_name_and_by_form() -> None:
    given = {"a": {"api_key": "hunter2", "n": 3, "on": True, "urls": ["http://u:hunter2@h"]}, "token": None, "x": ""}
    assert masked_values(given) == {
        "a": {"api_key": "***", "n": 3, "on": True, "urls": ["http://u:***@h"]},
        "token": None,
        "x": "",
    }


def test_a_number_under_the_key_of_a_secret_may_be_one() -> None:
    assert masked_values({"password": 4711, "auth": 2, "api_key": True}) == {
        "password": "***",
        "auth": 2,
        "api_key": True,
    }
    assert masked_values({"model": {"token": 32000}}) == {"model": {"token": 32000}}, "a number of tokens"
    assert masked("model.token=512 {'token': 16, 'x': 1}") == "model.token=512 {'token': 16, 'x': 1}"
    assert masked("model.token=512a model.token=12345678") == "model.token=*** model.token=***"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"token": 5}, {"token": 6}),
        ({"token": "cls"}, {"token": "mean"}),
        ({"token": "<|endoftext|>"}, {"token": "<|startoftext|>"}),
        ({"token": {"kind": ["cls"]}}, {"token": {"kind": ["mean"]}}),
        ({"auth": "basic"}, {"auth": "none"}),
        ({"password": 4711}, {"password": 4712}),
        ({"text": "token=cls, n=2"}, {"text": "token=mean, n=2"}),
        ({"url": "redis://ann:a@host"}, {"url": "redis://ann:b@host"}),
    ],
)
def test_a_setting_under_the_key_of_a_secret_is_compared(one: dict, other: dict) -> None:
    assert comparable_values(one) == comparable_values(one)
    assert comparable_values(one) != comparable_values(other)


@pytest.mark.parametrize(
    "hold",
    [lambda s: {"api_key": s}, lambda s: {"token": [s]}, lambda s: f"redis://ann:{s}@host", lambda s: f"pwd={s}"],
)
def test_a_renewed_secret_is_no_difference(hold) -> None:
    assert comparable_values(hold("planted-0815")) == comparable_values(hold("renewed-0816"))
    assert "planted" not in str(comparable_values(hold("planted-0815")))


@pytest.mark.parametrize("key", ["password", "token", "api_key"])
def test_no_list_of_guesses_finds_what_is_compared(key: str) -> None:
    """One byte is known of it, however often it is stored, so one in 256 guesses fits."""
    stored = comparable_values({key: "hunter2"})[key]
    assert len(stored) == len("***") + 2
    fitting = sum(comparable_values({key: f"pw{number}"})[key] == stored for number in range(5120))
    assert 5 < fitting < 40
    assert comparable_values({"x": {key: "hunter2"}})["x"][key] == stored


def test_all_under_the_key_of_a_secret_is_masked() -> None:
    assert masked_values({"api_key": {"user": "a", "parts": ["b"]}}) == {"api_key": {"user": "***", "parts": ["***"]}}


@pytest.mark.parametrize("key", ["password", "model.api_key", "HF_TOKEN", "db-password", "token", "auth_token", "PWD"])
def test_secret_keys(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key", ["tokens", "pad_token", "secretary", "bypass", "key", "max_tokens", *sorted({*ORDINARY} - NAMED)]
)
def test_other_keys(key: str) -> None:
    assert not is_secret_key(key)


@given(st.text())
def test_a_printable_line_has_no_control_characters(text: str) -> None:
    assert {unicodedata.category(character) for character in printable(text)}.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})


def test_line_feeds_are_kept_on_request() -> None:
    assert printable("a\x1b[31m\nb\u202ec", keep="\n") == "a\\x1b[31m\nb\\u202ec"


@pytest.mark.parametrize("error", [InputError, RunError])
def test_messages_are_one_line_without_secrets(error: type[Exception]) -> None:
    message = str(error("must be right, got postgresql://u:hunter2@h\x1b[2J\nand\u202e more " + "x" * 5000))
    assert message.startswith("must be right, got postgresql://u:***@h\\x1b[2J\\nand\\u202e more ")
    assert message.endswith("x" * 100)
    assert len(message) <= LONGEST


def test_a_short_line_is_whole() -> None:
    assert one_line("x" * LONGEST) == "x" * LONGEST


def test_causes_are_masked_and_short() -> None:
    cause = ValueError("no answer from postgresql://u:hunter2@h/db " + "x" * 2000)
    assert "hunter2" not in first_cause(cause)
    assert len(first_cause(cause)) <= 300


def test_an_error_of_the_system_is_the_cause_whatever_was_handled() -> None:
    error = OSError(28, "No space left on device")
    error.__context__ = KeyError("Record does not exist.")
    assert first_cause(error) == "[Errno 28] No space left on device"


def test_every_message_on_stderr_is_broken_as_its_terminal_asks() -> None:
    sources = [path for path in Path(dropsearch.__file__).parent.rglob("*.py") if path.name != "printable.py"]
    printing = [
        f"{path}:{call.lineno}"
        for path in sources
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and any(ast.unparse(each.value) == "sys.stderr" for each in call.keywords)
        and ast.unparse(call.func) == "print"
    ]
    assert [place for place in printing if "ray_crew" not in place] == []  # a row of figures


def test_a_message_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        tell("word " * 40 + "\x1b[2J")
    lines = os.read(leader, 10_000).decode().split("\r\n")
    os.close(leader)
    assert max(map(len, lines)) <= 80
    assert " ".join(lines).split() == ["word"] * 40 + ["\\x1b[2J"]

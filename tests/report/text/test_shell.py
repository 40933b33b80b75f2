"""Folded commands are read by a shell as the commands they are, and fit their width."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from dropsearch.report.text.shell import folded

CODE = (
    'from user_module import LitNet; net = LitNet.load_from_checkpoint("outputs/net-data/best/both.ckpt", width=16, '
    'title="it\'s"); from dropsearch import set_rates; '
    'set_rates(net, {"drop": 0.123456, "model.block.0.drop": 0.5, "last": 0.0}); print(net)'
)
COMMANDS = [
    "python -m dropsearch",
    shlex.join(["python", "-c", CODE]),
    shlex.join(["python", "-m", "dropsearch", *(f"model.key_{each}=[{each},{each}]" for each in range(20))]),
    shlex.join(["python", "x" * 200, "'" * 90, "a b" * 60, "", "=", "\\" * 100, "ü漢" * 50]),
    shlex.join(["python", "-m", "dropsearch", "output_dir=" + "/a folder" * 20, "seed=1"]),
]


def words_of(command: str) -> list[str]:
    """Return the words of a command as a shell reads it."""
    script = "python() { printf '%s\\0' \"$@\"; }\n" + command
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split("\0")[:-1]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [40, 80])
def test_a_shell_reads_a_folded_command_as_the_command(command: str, width: int) -> None:
    text = folded(command, width)
    assert max(map(len, text.splitlines())) <= width
    assert words_of(text) == words_of(command) == (shlex.split(command)[1:] or [""])


def test_code_breaks_behind_statements() -> None:
    first, second, *_ = folded(COMMANDS[1], 80).splitlines()
    assert first == "  python -c \\"
    assert second == "'from user_module import LitNet; '\\"


@pytest.mark.parametrize("word", ["http://host/" + "a" * 90, '"$MLFLOW_' + "A" * 90 + '"'])
def test_what_is_clicked_or_expanded_stays_whole(word: str) -> None:
    assert folded(word, 80) == f"  {word}"
    assert folded(f"mlflow ui --backend-store-uri {word}", 80).splitlines()[-1].strip() == word

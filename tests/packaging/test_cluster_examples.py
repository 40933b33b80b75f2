"""The examples for clusters: the commands that they start are legal, and say what each process is for."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dropsearch.config.schema import Config
from tests.experiment.conftest import composed
from tests.packaging.programs import ROOT

FOLDER = ROOT / "examples" / "cluster"
STORAGE = "postgresql://ann@db/studies"


def parsed(command: str, variables: dict[str, str]) -> Config:
    """Return the configuration of a command line of dropsearch, with its variables put in."""
    for name, value in variables.items():
        command = re.sub(rf'"?\${name}\b"?', value, command)
    words = shlex.split(command)
    return composed(*words[words.index("dropsearch") + 1 :])


def submitted(tmp_path: Path, **variables: str) -> list[str]:
    """Return what a task of the job array would run."""
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    environment = {**os.environ, "PYTHON": str(tmp_path / "python"), **variables}
    ended = subprocess.run(
        ["bash", FOLDER / "slurm.sbatch", "model=cnn", "model.channels=[16,32]"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_first_task_of_a_job_array_reports(tmp_path: Path):
    for index, task in (("0", "search"), ("3", "work")):
        words = submitted(tmp_path, STORAGE=STORAGE, OUTPUT="/shared/out", SLURM_ARRAY_TASK_ID=index)
        config = composed(*words[2:])
        assert words[:2] == ["-m", "dropsearch"]
        assert (config.task, config.study.storage, config.output_dir) == (task, STORAGE, "/shared/out")


def test_job_array_without_a_storage_is_refused():
    environment = {name: value for name, value in os.environ.items() if name != "STORAGE"}
    ended = subprocess.run(
        ["bash", FOLDER / "slurm.sbatch"], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
    assert "set STORAGE to a database" in ended.stderr


def documents() -> dict[tuple[str, str], Any]:
    read = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    return {(each["kind"], each["metadata"]["name"]): each for each in read}


def test_kubernetes_jobs_start_a_run_and_workers():
    found = documents()
    data = found["ConfigMap", "dropsearch"]["data"]
    claims = {name for kind, name in found if kind == "PersistentVolumeClaim"}
    tasks = []
    for job in ("dropsearch-run", "dropsearch-workers"):
        pod = found["Job", job]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        variables = {
            each["name"]: each.get("value") or data.get(each["valueFrom"].get("configMapKeyRef", {}).get("key"), "")
            for each in container["env"]
        }
        config = parsed(container["args"][0], variables)
        tasks.append((config.task, config.output_dir, config.study.storage))
        assert pod["restartPolicy"] == "OnFailure"
        assert "$" not in " ".join(tasks[-1])
        mounted = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
        volumes = {each["name"]: each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"]}
        assert volumes[mounted[config.output_dir]] in claims
    assert [task for task, *_ in tasks] == ["search", "work"]
    assert tasks[0][1:] == tasks[1][1:], "one folder and one storage"


def test_compose_file_starts_what_the_commands_name():
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    configs = {name: parsed(services[name]["command"], {}) for name in ("run", "worker")}
    assert {name: config.task for name, config in configs.items()} == {"run": "search", "worker": "work"}
    assert (
        configs["run"].study.storage == configs["worker"].study.storage == "postgresql://dropsearch@postgres/dropsearch"
    )
    assert configs["run"].tracking.uri == "http://mlflow:5000"
    assert {"postgres", "mlflow"} == set(services["run"]["depends_on"])
    assert all(port.startswith("127.0.0.1:") for port in services["mlflow"]["ports"])


@pytest.mark.parametrize("file", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_no_password_stands_in_an_example(file: Path):
    assert not re.search(r"://[^/@\s:]+:[^$@\s]+@", file.read_text())

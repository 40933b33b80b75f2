"""A SLURM of one node in this machine, on 127.0.0.1: munged, slurmctld and slurmd of Debian's `slurm-wlm`."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from tests.free_port import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel")
CONFIGURATION = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 Boards=1 SocketsPerBoard=1 CoresPerSocket=16 ThreadsPerCore=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
"""The node claims more cores than the machine may have, so that a whole job array runs at once."""
SECONDS = 60.0


def missing() -> str:
    """Return what is missing to start SLURM; empty where nothing is."""
    absent = [name for name in PROGRAMS if not _program(name)]
    return f"{', '.join(absent)} not found (Debian: apt-get install slurm-wlm)" if absent else ""


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class SlurmNode:
    """A SLURM that is up while the context lasts; `environment` lets `sbatch` find it."""

    def __enter__(self) -> SlurmNode:
        self.folder = Path(tempfile.mkdtemp(prefix="dropsearch-slurm-"))
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(mode=0o755)
        self.folder.chmod(0o755)  # munge's clients look into it
        ports = [free_port(), free_port()]
        text = CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0], folder=self.folder, user=_user(), ports=ports
        )
        configuration = self.folder / "slurm.conf"
        configuration.write_text(text)
        self.environment = {**os.environ, "SLURM_CONF": str(configuration)}
        self._daemons: list[subprocess.Popen[bytes]] = []
        key = self.folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        try:
            munge = {"key-file": key, **{name: key.with_name(name) for name in ("socket", "pid-file", "log-file")}}
            munge["seed-file"] = key.with_name("seed")
            self._start("munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in munge.items()))
            self._wait("munged", munge["socket"].exists)
            self._start("slurmctld", "-D", "-i", "-f", str(configuration))
            self._start("slurmd", "-D", "-f", str(configuration))
            self._wait("slurmd", self._is_idle)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, program: str, *words: str) -> str:
        """Run a client of SLURM and return what it prints."""
        done = subprocess.run([program, *words], env=self.environment, check=True, capture_output=True, text=True)
        return done.stdout

    def _start(self, program: str, *words: str) -> None:
        path = _program(program)
        assert path, missing()
        with (self.folder / f"{program}.out").open("wb") as log:
            daemon = subprocess.Popen([path, *words], env=self.environment, stdout=log, stderr=log)
        self._daemons.append(daemon)

    def _is_idle(self) -> bool:
        with suppress(subprocess.CalledProcessError):
            return "idle" in self.call("sinfo", "-h", "-o", "%t")
        return False

    def _wait(self, program: str, is_up: object) -> None:
        until = time.monotonic() + SECONDS
        while not is_up():  # type: ignore[operator]
            if time.monotonic() > until or any(daemon.poll() is not None for daemon in self._daemons):
                logs = "\n".join(path.read_text(errors="replace")[-1000:] for path in self.folder.glob("slurm*.log"))
                raise SystemExit(f"FAILED: {program} did not come up\n{logs}")
            time.sleep(0.3)

    def _end(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name

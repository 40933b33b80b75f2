"""The Weights & Biases tracker: one run per trial, grouped by study, and one for the study."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dropsearch.core.errors import InputError, first_cause
from dropsearch.core.records import Summary, TrialResult
from dropsearch.tracking.metrics import OWN, EndedTrials, flat, of_epoch, of_summary, of_trial, params_of
from dropsearch.tracking.mlflow.background_writer import BackgroundWriter
from dropsearch.tracking.tracker import Tracker

MODES = ("online", "offline", "disabled", "shared")


class WandbTracker(Tracker):
    """Writes runs to `output_dir/wandb` and, in online mode, to the server.

    WANDB_MODE sets the mode; without it, runs are online if an API key is known, otherwise offline, for
    ``wandb sync``. WANDB_PROJECT and WANDB_ENTITY are used.

    A trial is written when it ends, in a background thread. The id of its run is a function of study and trial, so that
    a trial that is written twice has one run.
    """

    def __init__(self, output_dir: Path) -> None:
        super().__init__()
        self._output_dir = output_dir.absolute()
        self._writer: BackgroundWriter | None = None
        self._ended: EndedTrials | None = None
        self._project, self._mode = "", ""
        self._study, self._study_id = "", ""
        self._run: Any = None
        self._written: set[str] = set()

    @property
    def location(self) -> Mapping[str, str]:
        """Project, mode and folder, available after `connect`."""
        return {"project": self._project, "mode": self._mode, "dir": str(self._output_dir / "wandb")}

    @property
    def info(self) -> Mapping[str, str]:
        """The location, with the URL of the study's run in online mode."""
        url = self._run.url if self._run is not None and self._mode == "online" else None
        return {**self.location, **({"url": url} if url else {})}

    def connect(self, experiment: str) -> None:
        """Determine the mode."""
        mode = os.environ.get("WANDB_MODE", "")
        if mode and mode not in MODES:
            raise InputError(f"WANDB_MODE must be one of {', '.join(MODES)}, got {mode!r}: correct or unset it")
        self._mode = mode or ("online" if _api_key() else "offline")
        self._project = os.environ.get("WANDB_PROJECT") or experiment
        self._writer = BackgroundWriter(self._problems, service="W&B")

    def start(self, *, study: str, study_id: str, config: Mapping[str, Any], tags: Mapping[str, str], **_: Any) -> None:
        """Open the run of the study."""
        self._study, self._study_id = study, study_id
        self._ended = EndedTrials(self._output_dir / "wandb" / "ended.tsv", study_id)
        try:
            self._run = self._init("study", "study", {**flat(config), **tags})
        except Exception as error:
            raise InputError(
                f"tracking=wandb must be able to open a run, and wandb said {first_cause(error)[:200]!r}: log in, "
                "or set WANDB_MODE=offline"
            ) from error

    def end(self, result: TrialResult) -> None:
        """Queue a finished trial for writing and return immediately."""
        key = result.spec.key
        if self._writer is not None and key not in self._written:
            self._written.add(key)
            self._writer.put(f"trial {key}", partial(self._write_trial, result), again=True)

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Return the trials that are not written yet."""
        return set(keys) - self._written - (self._ended.keys() if self._ended else set())

    def finish(self, summary: Summary, artifacts: Sequence[Path]) -> None:
        """Write the summary metrics of arms and the files of the run, winners included, and close the study's run."""
        if self._writer is not None:
            self._writer.put("the summary", partial(self._write_summary, summary, artifacts))
        self._close(0 if summary.complete else 1)

    def close(self, status: Literal["KILLED", "FAILED"] = "FAILED") -> None:
        """Close the study's run as unfinished; does nothing after `finish`."""
        self._close(1)

    def _init(self, name: str, job_type: str, config: Mapping[str, Any]) -> Any:
        import wandb  # pyright: ignore[reportMissingImports]  # of an extra

        digest = hashlib.sha256(f"{self._study_id}/{name}".encode()).hexdigest()[:16]
        self._output_dir.mkdir(parents=True, exist_ok=True)
        return wandb.init(
            project=self._project,
            id=digest,
            name=name,
            group=self._study,
            job_type=job_type,
            config=dict(config),
            dir=str(self._output_dir),
            mode=self._mode,  # type: ignore[arg-type]  # checked in `connect`
            resume="allow" if self._mode == "online" else None,
            reinit="create_new",
            # Its metadata has the words of the command, passwords too; ours is in the configuration.
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, x_disable_stats=True, x_disable_meta=True
            ),
        )

    def _write_trial(self, result: TrialResult) -> None:
        spec = result.spec
        run = self._init(spec.key, spec.phase, params_of(spec))
        for metrics in result.curve:
            run.log(of_epoch(metrics), step=metrics.epoch)
        run.summary.update({**of_trial(result), f"{OWN}/state": result.state, f"{OWN}/reason": result.reason})
        run.finish(exit_code=1 if result.state == "FAIL" else 0)
        if self._ended is not None:
            self._ended.add(spec.key)

    def _write_summary(self, summary: Summary, artifacts: Sequence[Path]) -> None:
        if self._run is None:
            return
        self._run.summary.update(of_summary(summary))
        for path in artifacts:
            self._run.save(str(path.absolute()), base_path=str(self._output_dir), policy="now")

    def _close(self, exit_code: int) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.retry()
        if self._run is not None:
            writer.put("the end of the study", partial(self._run.finish, exit_code=exit_code))
        if lost := writer.close():
            self._problems.append(f"W&B lacks {len(lost)} of the trials that ended, first {lost[0]}")


def _api_key() -> bool:
    """Return whether wandb knows an API key, from the environment or a netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb  # pyright: ignore[reportMissingImports]  # of an extra

    return bool(wandb.api.api_key)

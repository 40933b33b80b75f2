"""`task=search`: from a configuration to an answer."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import torch

from dropsearch.app import build
from dropsearch.app.ablation import Ablation, ArmStudies, checkpoint
from dropsearch.app.products import best_arm, best_retraining, write_files
from dropsearch.app.provenance import commands, git_state, this_command, versions
from dropsearch.app.watch import Interruption, WatchedFeed
from dropsearch.config.schema import Config
from dropsearch.data.tensors import TensorDataModule
from dropsearch.dropout.typical import typical_rates
from dropsearch.evidence.compare import compare
from dropsearch.models import Classifier
from dropsearch.records import ARMS, Site, Summary
from dropsearch.report import Progress, closing
from dropsearch.search.ledger import Ledger, check_studies, trials_in
from dropsearch.search.samplers import make_pruner, make_sampler
from dropsearch.search.space import Space
from dropsearch.search.storage import open_storage, storage_exists
from dropsearch.seeds import derived_seed
from dropsearch.tracking import Tracker, make_tracker
from dropsearch.training.feed import Feed

INTERRUPTED = 130


def search(config: Config) -> int:
    """Search, confirm, test, and leave every file; return 0, or 130 where the user stopped it."""
    started = time.perf_counter()
    source = build.data(config, build.device(config))
    sites = build.sites(config, source)
    fingerprints = {f"{config.study.name}/{name}": _fingerprint(config, source, sites, name) for name in config.arms}
    folder = build.output_folder(config)
    journal = folder / "study.journal"
    if storage_exists(config.study.storage, journal):
        check_studies(open_storage(config.study.storage, journal), fingerprints)
    tracker = make_tracker(config.tracking.name, uri=config.tracking.uri, output_dir=folder)
    run = _Run(config, source, sites, folder, tracker, started)
    run.open(journal)
    return run.work()


def _fingerprint(config: Config, source: TensorDataModule, sites: tuple[Site, ...], arm: str) -> Any:
    return build.fingerprint(config, source, ARMS[arm], sites)


class _Run:
    """One invocation: the studies, the tracker and the progress bar, and what comes of them."""

    def __init__(
        self,
        config: Config,
        source: TensorDataModule,
        sites: tuple[Site, ...],
        folder: Path,
        tracker: Tracker,
        started: float,
    ) -> None:
        self.config, self.source, self.sites = config, source, sites
        self.folder, self.tracker, self.started = folder, tracker, started
        self.interruption = Interruption()

    def open(self, journal: Path) -> None:
        """Open the parent run, then the studies, and track what an earlier process told but did not track."""
        config, source = self.config, self.source
        self.tracker.start(
            experiment=f"{config.model.name}-{source.name}",
            study=config.study.name,
            config=dataclasses.asdict(config),
            tags={
                **git_state(),
                "command": this_command(),
                **{f"version.{k}": v for k, v in versions().items()},
            },
            data={
                "name": source.name,
                "digest": source.digest,
                "source": source.source,
                "sizes": source.sizes,
                "input_shape": list(source.input_shape),
                "classes": source.classes,
            },
        )
        storage = open_storage(config.study.storage, journal)
        studies = [self._studies(storage, name) for name in config.arms]
        engine = build.engine(config, source, self._checkpoint_path)
        self.ablation = Ablation(
            config, source, self.sites, studies, engine, self.folder / "checkpoints", self.interruption
        )
        self._track_missing()

    def _checkpoint_path(self, spec: Any) -> Path | None:
        return checkpoint(self.folder / "checkpoints", spec) if spec.purpose == "confirm" else None

    def _studies(self, storage: Any, name: str) -> ArmStudies:
        config, arm = self.config, ARMS[name]
        fingerprint = build.fingerprint(config, self.source, arm, self.sites)
        sampler = make_sampler(
            config.sampler.name,
            # A continued study must not draw again what it drew before.
            derived_seed(config.seed, "sampler", trials_in(storage, f"{config.study.name}/{name}")),
            config.sampler.startup_trials,
        )
        pruner = make_pruner(
            config.pruner.name,
            config.trainer.max_epochs,
            config.pruner.startup_trials,
            config.pruner.warmup_epochs,
        )
        study = f"{config.study.name}/{name}"
        return ArmStudies(
            arm,
            Space(build.space_settings(config), arm, self.sites, typical_rates(self.sites)),
            Ledger(
                storage,
                study,
                arm=name,
                purpose="search",
                fingerprint=fingerprint,
                sampler=sampler,
                pruner=pruner,
            ),
            Ledger(storage, f"{study}/confirm", arm=name, purpose="confirm", fingerprint=fingerprint),
        )

    def _track_missing(self) -> None:
        results = {r.spec.key: r for arm in self.ablation.studies for r in arm.results()}
        missing = self.tracker.missing(results) if results else set()
        for key in sorted(missing):
            self.tracker.end(results[key])

    def work(self) -> int:
        """Search, confirm and test; then close everything, however it ended."""
        try:
            with self.interruption.listening():
                self._train()
            summary = self._summary()
            artifacts = write_files(summary, self.config, self.folder)
            if self.interruption.requested:
                self.tracker.interrupt()
            else:
                self.tracker.finish(summary, artifacts, *self._model(summary))
        except BaseException:
            self.tracker.close("KILLED" if self.interruption.requested else "FAILED")
            raise
        print(closing(summary))
        for problem in self.tracker.problems:
            print(f"tracking: {problem}", file=sys.stderr)
        return INTERRUPTED if self.interruption.requested else 0

    def _train(self) -> None:
        config, studies = self.config, self.ablation.studies
        confirmations = config.confirm.top_k * config.confirm.seeds
        total = len(studies) * (config.study.n_trials + confirmations)
        progress = Progress(total, initial=sum(len(arm.results()) for arm in studies))

        def watch(feed: Feed) -> Feed:
            return WatchedFeed(feed, self.tracker, progress)

        try:
            progress.phase("search")
            self.ablation.search(watch)
            progress.phase("confirm")
            if not self.interruption.requested:
                self.ablation.confirm(watch)
        finally:
            progress.close()

    def _summary(self) -> Summary:
        complete = not self.interruption.requested
        arms = self.ablation.outcomes(open_test=complete)
        return Summary(
            study=self.config.study.name,
            model=self.config.model.name,
            data=self.source.name,
            seed=self.config.seed,
            versions=versions(),
            seconds=time.perf_counter() - self.started,
            engine=self.ablation.engine.description,
            sites=self.sites,
            arms=arms,
            comparisons=compare(arms),
            config=dataclasses.asdict(self.config),
            mlflow=dict(self.tracker.info),
            commands=commands(Path(self.config.output_dir), best_arm(arms), self.tracker.info),
            complete=complete,
        )

    def _model(self, summary: Summary) -> tuple[Any, Any]:
        name = best_arm(summary.arms)
        winner = summary.arms[name].winner if name else None
        if winner is None or not self.config.tracking.log_model:
            return None, None
        path = checkpoint(self.folder / "checkpoints", best_retraining(winner).spec)
        batch = next(iter(self.source.val_dataloader()))
        inputs = [part[:4].cpu().numpy() for part in batch[:-1]]

        def load() -> torch.nn.Module:
            return Classifier.load_from_checkpoint(path, map_location="cpu").eval()

        return load, inputs[0] if len(inputs) == 1 else tuple(inputs)

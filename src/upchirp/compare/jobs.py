"""The runs of a comparison: their settings, their plans and what they cost, before anything is trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from upchirp.compare.config import CompareConfig
from upchirp.compare.outcomes import Entry
from upchirp.compare.progress import Speeds, seconds_of
from upchirp.compare.settling import Sources, naming, settle_variants
from upchirp.curriculum import Plan
from upchirp.data import Source
from upchirp.data.sources import Note, warn
from upchirp.errors import InputError
from upchirp.training import TrainConfig, read_metrics
from upchirp.training.checkpoints import checkpoint
from upchirp.training.folders.run_folder import CHECKPOINTS, WEIGHTS, WEIGHTS_EMA, finished
from upchirp.training.jobs.pricing import seconds_here
from upchirp.training.recipes.config_file import CONFIG, load_config


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run to come."""

    entry: Entry
    """Variant and budget."""
    seed: int
    """Its seed."""
    config: TrainConfig
    """Its settings; of a run on another one without that one's weights."""
    plan: Plan
    """What it will execute."""
    compute: float
    """Multiply-adds of its forward passes."""
    sources: tuple[Source, Source]
    """Training and validation images."""
    after: Entry | None = None
    """Whose trained weights it starts from."""
    seconds: float | None = None
    """Its training time, if speeds are known: from finished runs in the folder, or measured."""

    def on_weights_of(self, folder: Path) -> TrainConfig:
        """Its settings with the weights of another run, its average if there is one.

        Raises:
            InputError: that run has left none.
        """
        found = [folder / name for name in (WEIGHTS_EMA, WEIGHTS) if (folder / name).exists()]
        if not found:
            raise InputError(f"{folder} holds no weights for {self.entry.name} to start from: delete it to train anew")
        return replace(self.config, weights=found[0])

    def steps_done(self) -> int:
        """Steps that were trained before, which a comparison that goes on need not do again."""
        folder = self.config.output
        if folder is None or self.config.resume is None:
            return 0
        if finished(folder):
            return self.plan.total_steps
        return max(map(checkpoint.step_of, checkpoint.checkpoints(folder / CHECKPOINTS)), default=0)


def jobs_of(config: CompareConfig, output: Path, sources: Sources) -> list[Job]:
    """The runs in their order, seeds outermost, each planned: a mistake in the last shows before the first is trained.

    Raises:
        InputError: a variant that cannot run.
    """
    settled = settle_variants(config, sources)
    baseline = next(iter(settled.values()))
    whole = baseline.config.epochs * baseline.compute_of_an_epoch
    entries: dict[Entry, tuple[TrainConfig, Plan, Entry | None]] = {}
    for name, variant in settled.items():
        with naming(config, name):
            starts = [entry for entry in entries if entry.variant == variant.variant.after]
            budgets = [entry.budget for entry in starts] or list(variant.variant.budgets)
            if variant is baseline:
                # At its largest budget it is what all others are compared with.
                budgets.sort(reverse=True)
            for budget in budgets:
                share = 1.0 if starts else budget
                epochs = variant.config.epochs * share
                if config.equal_cost and not starts and variant is not baseline:
                    epochs = share * whole / variant.compute_of_an_epoch
                run = replace(variant.config, epochs=epochs)
                start = next((entry for entry in starts if entry.budget == budget), None)
                entries[Entry(name, budget)] = (run, variant.plan(run), start)
    return [
        Job(
            entry=entry,
            seed=seed,
            config=replace(
                run, seed=seed, output=output / entry.name / f"seed{seed}", resume=config.training.resume
            ),
            plan=plan,
            compute=settled[entry.variant].compute(plan),
            sources=settled[entry.variant].sources,
            after=after,
        )
        for seed in config.seeds
        for entry, (run, plan, after) in entries.items()
    ]  # fmt: skip


def estimate(config: CompareConfig, *, measure: bool = False, note: Note = warn) -> list[Job]:
    """All runs with what they cost; nothing is trained.

    Args:
        config: what to compare.
        measure: take the speeds of a few steps at each bandwidth on this machine.
        note: called with each line on the data; by default it is a warning.

    Raises:
        InputError: bad input, as when the comparison is started.
    """
    output = config.training.output
    sources = Sources(note=note)
    jobs = jobs_of(config, output or Path(), sources)
    speeds: Speeds = measured_speeds(output) if output else {}
    if measure:
        for model in dict.fromkeys(job.config.model for job in jobs):
            own = [job for job in jobs if job.config.model == model]
            speeds = {**speeds, model: {**speeds.get(model, {}), **_speeds_on_this_machine(own)}}
    return [replace(job, seconds=seconds_of(job.plan, speeds.get(job.config.model, {}))) for job in jobs]


def measured_speeds(output: Path) -> dict[str, dict[int, float]]:
    """Images per second by model and bandwidth, the medians over the logs of the folder's runs."""
    measured: dict[str, dict[int, list[float]]] = {}
    for log in output.glob("*/seed*"):
        if not (log / CONFIG).exists():
            continue
        own = measured.setdefault(str(load_config(log / CONFIG).get("model")), {})
        for record in read_metrics(log):
            if record.get("kind") == "train":
                own.setdefault(int(record["bandwidth"]), []).append(record["images_per_second"])
    return {model: {side: median(speeds) for side, speeds in own.items()} for model, own in measured.items()}


def _speeds_on_this_machine(jobs: Sequence[Job]) -> Mapping[int, float]:
    """Images per second by bandwidth of jobs with one model."""
    job = jobs[0]
    bandwidths = sorted({side for each in jobs for side in each.plan.bandwidths})
    table = seconds_here(job.config, job.sources[0], bandwidths)
    return {side: 1 / table(side) for side in bandwidths}

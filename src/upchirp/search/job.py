"""A search from configuration to a curriculum file: a job in a folder, killed and resumed like any other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from upchirp.curriculum import Curriculum, save_curriculum, scaled
from upchirp.data import DataIdentity
from upchirp.data.sources import Note, warn
from upchirp.errors import InputError
from upchirp.search.config import SearchConfig
from upchirp.search.events import Begun, Found, SearchObserver
from upchirp.search.executors import open_executor
from upchirp.search.greedy import greedy_search
from upchirp.search.journal import Journal
from upchirp.search.objectives import objective
from upchirp.search.preparation import Prepared, prepare
from upchirp.search.sequential import sequential_search
from upchirp.search.summary import provenance, summarise, write_summary
from upchirp.search.trial_plan import Planner
from upchirp.search.trials import Trials
from upchirp.training import Noted
from upchirp.training.engine.task import Task
from upchirp.training.events import Report, unreported
from upchirp.training.folders import run_folder
from upchirp.training.folders.held_folder import held_folder
from upchirp.training.folders.interruption import collected_signals
from upchirp.training.folders.resumption import go_on_with
from upchirp.training.jobs.pricing import seconds_here
from upchirp.training.parallel.device import choose_device
from upchirp.training.parallel.launcher import world_size
from upchirp.training.recipes.config_file import CONFIG, save_config

JOURNAL, CURRICULUM = "journal.jsonl", "curriculum.yaml"

_MAY_DIFFER = {
    "output", "resume", "workers", "loader_timeout", "checkpoint_interval", "parallel", "candidates_at_once", "engine",
    "evaluations", "log_interval", "checkpoint_keep", "report", "curriculum",
    "model_ema", "model_ema_decay", "model_ema_warmup",
}  # fmt: skip
"""Settings that a resumed search may change; the others may change the answer. Candidates keep no average."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found."""

    output: Path
    """The folder, with `curriculum.yaml` and `report.html`."""
    curriculum: Curriculum
    """What was found, at the final size of the search."""
    bandwidths: tuple[int, ...]
    """One for each stage."""
    summary: dict[str, Any]
    """The content of `summary.json`."""


def estimate(
    config: SearchConfig,
    *,
    model: nn.Module | None = None,
    data: Any = None,
    task: Task | None = None,
    measure: bool = False,
    note: Note = warn,
    report: Report = unreported,
) -> dict[str, Any]:
    """What a search costs, before anything runs: `trainings`, `equivalent_epochs`, `candidates`, and their grounds.

    Args:
        config: what to do.
        model: as `search` takes it.
        data: as `search` takes it.
        task: as `search` takes it.
        measure: train a few steps at each candidate, for the time: `seconds` of training on the `device` of this
            machine, one candidate at a time and without scoring.
        note: called with each line on the data; by default it is a warning.
        report: told how far measuring is.

    Raises:
        InputError: bad input, as `search` would find it.
    """
    prepared = prepare(config, model, data, task, note)
    planner = prepared.planner
    price, config = planner.price, planner.config
    measured: dict[str, Any] = {}
    if measure:
        sides = (*planner.candidates, planner.final_size)
        table = seconds_here(config.training, prepared.train, sides, task=prepared.task, model=model, report=report)
        device = choose_device(config.training.device)
        measured = {"seconds": planner.price_in_seconds(table).cost, "device": str(device)}
    return {
        "algorithm": config.algorithm,
        "trainings": price.trainings,
        "equivalent_epochs": price.cost,
        "candidates": list(planner.candidates),
        "exact": price.exact,
        "stages": config.stages,
        "epochs": config.epochs,
        "baseline_epochs": config.baseline,
        "tuning_epochs": config.tuning,
        "times_one_training": price.cost / config.epochs,
        "images": len(prepared.train),
        "val_images": len(prepared.val),
        "relative_cost": {str(side): cost for side, cost in planner.rates.relative.items()},
        **measured,
    }


def search(
    config: SearchConfig,
    *,
    model: nn.Module | None = None,
    data: Any = None,
    task: Task | None = None,
    command: str = "",
    observers: Sequence[SearchObserver] = (),
) -> SearchResult:
    """Search a curriculum and write it to the output folder; go on with a search that was interrupted.

    Args:
        config: what to do.
        model: any module that maps (N, 3, H, W) to (N, classes), not trained yet; by default `config.training.model`.
        data: the training images as a `Source` or a map-style data set of `(image, label)`; by default those of
            `config.training.data`, whose validation images are not used.
        task: what the model is trained to do; by default what the regime says. Its best figure counts as accuracy.
        command: the command line, for the record.
        observers: called with every event; see `upchirp.search.events`.

    Raises:
        InputError: bad input, found before training where that is possible.
        Interrupted: SIGINT or SIGTERM came; the states of what was running were saved.
    """
    if world_size() > 1:
        raise InputError("a search starts its own processes: leave out torchrun, and give `candidates_at_once=N`")
    with held_folder(config.training.output, f"search-{config.training.model}") as (folder, notes):
        resuming = config.training.resume == "auto" and run_folder.holds_run(folder)
        if resuming:
            stored = config.stored(folder).get("amp_dtype", run_folder.BEFORE_CHOICE["amp_dtype"])
            config = replace(config, training=config.training.as_chosen({"amp_dtype": stored}))
        else:
            run_folder.check_is_free(folder)
        prepared = prepare(config, model, data, task, notes.append)
        planner = prepared.planner
        config = planner.config
        journal = Journal(folder / JOURNAL)
        if resuming:
            _check_is_same_search(folder, config, journal)
        else:
            save_config(run_folder.with_absolute_data(config.to_flat()), folder / CONFIG)
        notes += _check_is_same_data(journal, prepared)
        executor = open_executor(config.engine, config.candidates_at_once, folder, threads=config.threads)
        # Executors may set handlers of their own, so ours come after them.
        with executor as opened, collected_signals() as received:
            trials = Trials(
                prepared,
                model,
                folder,
                journal,
                opened,
                received,
                observers,
                go_on=go_on_with(folder, job="search", objects=not command),
            )
            for note in notes:
                trials.emit(Noted(message=note))
            trials.emit(
                Begun(price=planner.price, candidates=planner.candidates, finished=len(trials.finished), output=folder)
            )
            found = _find(planner, trials)
            trials.clear()
        curriculum = scaled(
            planner.curriculum(found, float(config.stages), name="searched"), config.training.final_size
        )
        summary = summarise(prepared, found, curriculum, journal.of("trial"), command)
        save_curriculum(curriculum, folder / CURRICULUM, scales=True, comment=provenance(summary))
        write_summary(summary, folder, report=config.training.report)
        trials.emit(Found(bandwidths=found, equivalent_epochs=trials.spent, seconds=trials.seconds))
        return SearchResult(output=folder, curriculum=curriculum, bandwidths=found, summary=summary)


def _find(planner: Planner, trials: Trials) -> tuple[int, ...]:
    config = planner.config
    if config.algorithm == "greedy":
        return greedy_search(
            trials,
            stages=config.stages,
            candidates=planner.candidates,
            final_size=planner.final_size,
            baseline=config.baseline_accuracy,
            tolerance=config.tolerance,
        )
    return sequential_search(
        trials,
        stages=config.stages,
        candidates=planner.candidates,
        final_size=planner.final_size,
        objective=objective(config.objective, config.alpha),
        halving=config.halving,
    )


def _check_is_same_search(folder: Path, config: SearchConfig, journal: Journal) -> None:
    # The same data may lie elsewhere; where the journal knows them, they are compared themselves.
    may_differ = (
        _MAY_DIFFER | {"data", "more_data"} if any("data" in begun for begun in journal.of("begun")) else _MAY_DIFFER
    )
    asked = config.to_flat()
    if asked["recipe"] == "auto":
        # Stored is what that chose.
        may_differ = may_differ | {"recipe"}
    stored = config.stored(folder)
    if {asked["prepare"], stored.get("prepare", "cpu")} <= {"auto", "cpu"}:
        # Nothing is measured in a search, so that the CPU prepares either way.
        may_differ = may_differ | {"prepare"}
    run_folder.check_same_settings(folder, "a search", stored, asked, may_differ)


def _check_is_same_data(journal: Journal, prepared: Prepared) -> list[str]:
    now = DataIdentity.of(prepared.train, prepared.val)
    counts = {"images": len(prepared.train), "val_images": len(prepared.val)}
    begun = journal.of("begun")
    if not begun:
        journal.append({"kind": "begun", **counts, "data": now.to_dict()})
        return []
    if any(begun[0].get(name) != count for name, count in counts.items()):
        raise InputError(
            f"the search began with {begun[0].get('images')} images to train on and now there are "
            f"{counts['images']}: give the same data, or choose another `output`"
        )
    return DataIdentity.from_dict(begun[0]["data"]).check_same(now, "the search") if "data" in begun[0] else []

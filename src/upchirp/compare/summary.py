"""The summary of runs, as `summary.json` keeps it: a pure function of their logs and predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import compress, pairwise
from pathlib import Path
from statistics import median_high
from typing import Any

import numpy as np
import numpy.typing as npt

from upchirp.compare.curves import readings
from upchirp.compare.equal_accuracy import Speedup, Timed, relative_time_spread, speedup_at_equal_accuracy
from upchirp.compare.outcomes import Entry, Outcome
from upchirp.compare.speeds import Disturbance, Work
from upchirp.compare.steadiness import steadiness, variants_of
from upchirp.compare.uncertainty import Difference, Measured, SeedSpread, contrast, difference, seed_spread
from upchirp.reports.loaded import loaded_by_stage

_DRAWS = 200
"""Of the validation images, from which the error of mAP follows (a bootstrap)."""


def summarise(outcomes: Mapping[Entry, Sequence[Outcome]], *, seeds: Sequence[int], root: Path) -> dict[str, Any]:
    """Numbers of every variant and budget, their differences from the first, and the speed-ups.

    Args:
        outcomes: of each entry one for each seed; the first entry is the baseline, at its largest budget.
        seeds: of the runs, for their names.
        root: folder that the run folders are in.
    """
    timed = _timed(outcomes)
    computed = {
        entry: replace(each, seconds=[run.all_compute for run in outcomes[entry]]) for entry, each in timed.items()
    }
    spread = seed_spread([each.measured for each in timed.values()])
    steady = steadiness(outcomes, seeds=seeds)
    time_spread = relative_time_spread(_counted(timed, steady.times_count))
    baseline, *others = outcomes
    names = variants_of(outcomes)
    speedups = {
        name: _undisturbed(
            speedup_at_equal_accuracy(
                timed[baseline],
                [timed[entry] for entry in others if entry.variant == name],
                spread,
                time_spread=time_spread,
            ),
            steady.disturbed[name],
        )
        for name in names
    }
    differences = {entry: difference(timed[entry].measured, timed[baseline].measured, spread) for entry in others}
    return {
        "figure": outcomes[baseline][0].figure,
        "validation_images": timed[baseline].measured.images,
        "runs": [
            _entry_summary(
                entry,
                runs,
                root,
                list(steady.speeds[entry].values()),
                differences.get(entry),
                contrast([(1.0, timed[entry].measured)], spread),
                steady.times_count[entry],
                relative_compute=computed[entry].mean_seconds / computed[baseline].mean_seconds,
            )
            for entry, runs in outcomes.items()
        ],
        "speedup_at_equal_accuracy": next((speedup.ratio for speedup in speedups.values()), None),
        "speedups": {name: speedup.to_dict() for name, speedup in speedups.items()},
        "equal_accuracy": {
            name: _at_equal_accuracy(
                (baseline.variant, name),
                timed,
                computed,
                steady.disturbed[name],
                spread=spread,
                time_spread=time_spread,
            )
            for name in names
        },
        "speeds_compared": dict(steady.compared),
        "disturbed": {name: [each.to_dict() for each in found] for name, found in steady.disturbed.items()},
    }


def _timed(outcomes: Mapping[Entry, Sequence[Outcome]]) -> dict[Entry, Timed]:
    """Training time and accuracy of each entry's seeds."""
    hits = _hits(outcomes)
    return {
        entry: Timed(
            seconds=[run.all_seconds for run in runs],
            measured=Measured(
                accuracy=[run.top1 for run in runs],
                images=_validation_images(runs),
                hits=hits.get(entry),
                resampled=_resampled(runs),
            ),
        )
        for entry, runs in outcomes.items()
    }


def _counted(timed: Mapping[Entry, Timed], times_count: Mapping[Entry, Sequence[bool]]) -> list[Timed]:
    """The times of seeds that nothing disturbed, of each entry that has any."""
    counted = {entry: [*compress(each.seconds, times_count[entry])] for entry, each in timed.items()}
    return [replace(timed[entry], seconds=seconds) for entry, seconds in counted.items() if seconds]


def _hits(outcomes: Mapping[Entry, Sequence[Outcome]]) -> dict[Entry, npt.NDArray[np.float64]]:
    """For each entry the share of its seeds that guess each image right; nothing if runs are not comparable so."""
    runs = [run.predictions for own in outcomes.values() for run in own]
    known = [predictions for predictions in runs if predictions is not None]
    if len(known) < len(runs):
        return {}
    # An image that one run could not read is left out of all.
    common = reduce(np.intersect1d, [predictions.indices for predictions in known])
    labels = {predictions.labels[np.isin(predictions.indices, common)].tobytes() for predictions in known}
    if len(labels) > 1:
        return {}
    return {
        entry: np.mean(
            [run.predictions.hits[np.isin(run.predictions.indices, common)] for run in own if run.predictions], axis=0
        )
        for entry, own in outcomes.items()
    }


def _resampled(runs: Sequence[Outcome]) -> npt.NDArray[np.float64] | None:
    """The mean of what seeds come to on other draws of the images, where they rank these."""
    ranked = [run.scores for run in runs if run.scores is not None]
    return np.mean([each.resampled(_DRAWS) for each in ranked], axis=0) if len(ranked) == len(runs) else None


def _validation_images(runs: Sequence[Outcome]) -> int:
    return max((int(record.get("images", 0)) for run in runs for record in run.lines("evaluation")), default=0)


def _undisturbed(speedup: Speedup, found: Sequence[Disturbance]) -> Speedup:
    """Without a ratio if the times cannot be compared."""
    return replace(speedup, kind="disturbed", ratio=None, low=None, high=None, seconds=None) if found else speedup


def _at_equal_accuracy(
    names: tuple[str, str],
    timed: Mapping[Entry, Timed],
    computed: Mapping[Entry, Timed],
    disturbed: Sequence[Disturbance],
    *,
    spread: SeedSpread,
    time_spread: SeedSpread,
) -> list[dict[str, Any]]:
    """Ratios of compute and of time at every accuracy that both curves reach, as plain data."""

    def curve(amounts: Mapping[Entry, Timed], name: str) -> dict[float, Timed]:
        return {entry.budget: amount for entry, amount in amounts.items() if entry.variant == name}

    usual, name = names
    read = {
        "compute": readings(curve(computed, usual), curve(computed, name), names=names, spread=spread),
        "time": readings(curve(timed, usual), curve(timed, name), names=names, spread=spread, time_spread=time_spread),
    }
    rows: dict[tuple[str, float], dict[str, Any]] = {}
    for what, own in read.items():
        for each in own:
            row = rows.setdefault(
                (each.name, each.budget),
                {"name": each.name, "budget": each.budget, "accuracy": each.accuracy, "compute": None, "time": None},
            )
            speedup = _undisturbed(each.speedup, disturbed) if what == "time" else each.speedup
            row[what] = speedup.to_dict()
    return list(rows.values())


def _entry_summary(
    entry: Entry,
    runs: Sequence[Outcome],
    root: Path,
    speeds: Sequence[Mapping[Work, float]],
    against_baseline: Difference | None,
    mean: Difference,
    times_count: Sequence[bool],
    *,
    relative_compute: float,
) -> dict[str, Any]:
    before = [run.before.all_seconds if run.before else 0.0 for run in runs]
    return {
        "name": entry.variant,
        "curriculum": runs[0].plan.curriculum,
        "budget": entry.budget,
        "equivalent_epochs": runs[0].plan.equivalent_epochs,
        "compute": runs[0].all_compute,
        "relative_compute": relative_compute,
        "accuracy": [run.top1 for run in runs],
        "mean": {"accuracy": mean.points, "of_seeds": mean.of_seeds, "margin": mean.margin},
        "difference": against_baseline.to_dict() if against_baseline else None,
        "train_seconds": [run.all_seconds for run in runs],
        "times_count": list(times_count),
        "seconds_before": before,
        "spent": [spent(run.lines("end")) for run in runs],
        "loaded": [_loaded(run) for run in runs],
        "wait_share": [wait_share(run.lines("train")) for run in runs],
        "images_per_second": _speeds([record for run in runs for record in run.lines("train")]),
        "steady_speeds": [
            [{**work._asdict(), "images_per_second": speed} for work, speed in own.items()] for own in speeds
        ],
        "folders": [run.folder.relative_to(root).as_posix() for run in runs],
        "plan": runs[0].plan.to_dict(),
        "history": [[_history(record, run.figure) for record in run.lines("evaluation")] for run in runs],
    }


def _loaded(run: Outcome) -> list[dict[str, float] | None]:
    """What loaders delivered in each stage, as plain data."""
    stages = loaded_by_stage(run.log, len(run.plan.stages))
    return [None if stage is None else stage._asdict() for stage in stages]


def spent(ends: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of a run by what they went to; nothing for runs of versions that did not count them."""
    return dict(ends[-1].get("spent", {})) if ends else {}


def _history(record: Mapping[str, Any], figure: str) -> dict[str, Any]:
    return {name: record[name] for name in ("train_seconds", "progress", "bandwidth", "weights", figure, "loss")}


def _speeds(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Median images per second by bandwidth."""
    by_side: dict[int, list[float]] = {}
    for record in records:
        by_side.setdefault(record["bandwidth"], []).append(record["images_per_second"])
    return {str(side): median_high(speeds) for side, speeds in sorted(by_side.items())}


def wait_share(records: Sequence[Mapping[str, Any]]) -> float:
    """Share of a run's training time spent waiting for data, from the shares of its log lines.

    >>> wait_share([{"train_seconds": 10.0, "wait_share": 0.5}, {"train_seconds": 100.0, "wait_share": 0.0}])
    0.05
    """
    ends = [record["train_seconds"] for record in records]
    seconds = [end - begin for begin, end in pairwise([0.0, *ends])]
    waited = sum(share * length for share, length in zip((r["wait_share"] for r in records), seconds, strict=True))
    return waited / ends[-1] if ends and ends[-1] > 0 else 0.0

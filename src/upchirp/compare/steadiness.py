"""Whether the runs of a comparison ran at one speed, variant by variant."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from upchirp.compare.outcomes import Entry, Outcome
from upchirp.compare.speeds import Disturbance, Work, disturbances, slowed, steady_speeds


@dataclass(frozen=True, kw_only=True)
class Steadiness:
    """The speeds of all runs, and what they tell of their times."""

    speeds: Mapping[Entry, Mapping[str, Mapping[Work, float]]]
    """Of each entry's runs, by their names, images per second for each kind of work."""
    disturbed: Mapping[str, Sequence[Disturbance]]
    """Of each variant what disturbed it, or the baseline beside it."""
    compared: Mapping[str, bool]
    """Whether each variant ran long enough to tell."""
    times_count: Mapping[Entry, Sequence[bool]]
    """Of each entry's seeds whether nothing disturbed them."""


def steadiness(outcomes: Mapping[Entry, Sequence[Outcome]], *, seeds: Sequence[int]) -> Steadiness:
    """Compare the speeds of each variant's runs with each other, and with the baseline's if they work alike.

    Args:
        outcomes: of each entry one for each seed; the first entry is the baseline, at its largest budget.
        seeds: of the runs, for their names.
    """
    speeds = {
        entry: {
            f"{entry.name} seed {seed}": steady_speeds(run.lines("train"), run.plan)
            for seed, run in zip(seeds, runs, strict=True)
        }
        for entry, runs in outcomes.items()
    }
    alike = {name: _alike(name, outcomes) for name in variants_of(outcomes)}
    together = {
        name: {run: own for entry in entries for run, own in speeds[entry].items()} for name, entries in alike.items()
    }
    slow: set[str] = set().union(*map(slowed, together.values()))
    return Steadiness(
        speeds=speeds,
        disturbed={name: disturbances(own) for name, own in together.items()},
        compared={name: _compared(name, entries, speeds) for name, entries in alike.items()},
        times_count={entry: [run not in slow for run in own] for entry, own in speeds.items()},
    )


def variants_of(outcomes: Mapping[Entry, Sequence[Outcome]]) -> list[str]:
    """The names of the variants that are compared with the baseline, in their order."""
    baseline = next(iter(outcomes))
    return list(dict.fromkeys(entry.variant for entry in outcomes if entry.variant != baseline.variant))


def _alike(name: str, outcomes: Mapping[Entry, Sequence[Outcome]]) -> list[Entry]:
    """The baseline's entries and a variant's, if both compute and load in the same way; else the variant's alone."""
    baseline = next(iter(outcomes))
    own = [entry for entry in outcomes if entry.variant == name]
    if {run.computes for entry in own for run in outcomes[entry]} != {outcomes[baseline][0].computes}:
        return own
    return [entry for entry in outcomes if entry.variant == baseline.variant] + own


def _compared(name: str, alike: Sequence[Entry], speeds: Mapping[Entry, Mapping[str, Mapping[Work, float]]]) -> bool:
    """Whether the variant ran long enough to compare its speed: at one size with the baseline's, if they are alike."""
    work = {entry: {each for own in speeds[entry].values() for each in own} for entry in alike}
    own: set[Work] = set().union(*(work[entry] for entry in alike if entry.variant == name))
    usual: set[Work] = set().union(*(work[entry] for entry in alike if entry.variant != name))
    return bool(own & usual) if any(entry.variant != name for entry in alike) else bool(own)

"""What loaders delivered in each stage of a run, from its log (Tables 14 and 20)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Loaded(NamedTuple):
    """What came out of the loaders, mean over the time of a stage."""

    prepared_per_second: float
    """Images newly prepared."""
    megabytes_per_second: float
    """10^6 bytes given to the devices."""


def loaded_by_stage(log: Sequence[Mapping[str, Any]], stages: int) -> list[Loaded | None]:
    """What was loaded in each stage; nothing is known of logs of versions that did not count it.

    >>> line = dict(kind="train", stage=0, prepared_per_second=100.0, megabytes_per_second=2.0)
    >>> lines = [{**line, "train_seconds": 1.0}, {**line, "train_seconds": 4.0, "prepared_per_second": 20.0}]
    >>> loaded_by_stage(lines, 2)
    [Loaded(prepared_per_second=40.0, megabytes_per_second=2.0), None]

    Args:
        log: the lines of `metrics.jsonl`.
        stages: of the run's plan.
    """
    sums = [[0.0, 0.0, 0.0] for _ in range(stages)]
    begun = 0.0
    for line in log:
        if line["kind"] != "train":
            continue
        seconds, begun = line["train_seconds"] - begun, line["train_seconds"]
        if "prepared_per_second" in line:
            own = sums[line["stage"]]
            own[0] += seconds
            own[1] += seconds * line["prepared_per_second"]
            own[2] += seconds * line["megabytes_per_second"]
    return [Loaded(images / time, megabytes / time) if time > 0 else None for time, images, megabytes in sums]

"""Advice for a training that waits for data: more workers, cheaper images, or replay."""

import math
from dataclasses import dataclass, field

from upchirp.machine import usable_cores

ADVISED_SHARE = 0.1
"""Share of the time above which a training says what to do."""

MOST_REPLAYS = 8
"""No more are advised or chosen for each fresh batch: Table 14 finds no loss with 1, and tells nothing of many."""


@dataclass(frozen=True, kw_only=True)
class Supply:
    """What supplies a training with images, and what could help it.

    >>> supply = Supply(workers=4, cores=16, packing_helps=True)
    >>> print(supply.advice(0.4, bandwidth=96, replay=0))
    waiting for data takes 40 % of the time at B=96 with 4 workers: try `workers=7`, `upchirp pack`, or `replay=1`
    """

    workers: int
    """Loader processes now."""
    cores: int = field(default_factory=usable_cores)
    device_helps: bool = False
    """Whether there is a device that could prepare images, and does not."""
    packing_helps: bool = False
    """Whether `upchirp pack` would make the images cheaper to read."""

    def advice(self, share: float, *, bandwidth: int, replay: int | None) -> str:
        """What to do about a share of the time, 0 to 1, spent waiting at a bandwidth; see `remedies` for `replay`."""
        now = f"{self.workers} worker{'' if self.workers == 1 else 's'}"
        helping = self.remedies(share, replay=replay)
        return f"waiting for data takes {100 * share:.0f} % of the time at B={bandwidth} with {now}: try {helping}"

    def remedies(self, share: float, *, replay: int | None) -> str:
        """What helps against a share of time spent waiting, as the end of a line.

        `replay` is the number of replayed batches for each fresh one now; `None` where nothing is replayed, whatever
        the setting says.

        >>> Supply(workers=16, cores=16).remedies(0.75, replay=0)
        '`replay=3`'
        """
        # Rounded, so that a fifth left does not ask for 21 workers instead of 20.
        factor = round(1 / max(1 - share, 0.01), 6)
        wanted = math.ceil(max(self.workers, 1) * factor)
        found = []
        if self.workers < self.cores:
            found.append(f"`workers={min(wanted, self.cores)}`")
        if self.device_helps:
            found.append("`prepare='device'`")
        if self.packing_helps:
            found.append("`upchirp pack`")
        if replay is not None:
            found.append(f"`replay={min(MOST_REPLAYS, math.ceil((replay + 1) * factor) - 1)}`")
        found = found or ["more CPU cores"]
        return found[0] if len(found) == 1 else f"{', '.join(found[:-1])}, or {found[-1]}"

"""Advice for a training that waits for data: more workers, cheaper images, or replay."""

import math

ADVISED_SHARE = 0.1
"""Share of the time above which a training says what to do."""

MOST_REPLAYS = 8
"""No more are advised or chosen for each fresh batch: Table 14 finds no loss with 1, and tells nothing of many."""


def advice(
    share: float,
    *,
    bandwidth: int,
    workers: int,
    cores: int,
    device_helps: bool,
    packing_helps: bool,
    replay: int | None,
) -> str:
    """What to do about a share of time spent waiting, in one line with numbers.

    Args:
        share: of the time, 0 to 1.
        bandwidth: that it was seen at, pixels.
        workers: loader processes now.
        cores: CPU cores.
        device_helps: whether there is a device that could prepare images, and does not.
        packing_helps: whether `upchirp pack` would make the images cheaper to read.
        replay: replayed batches for each fresh one now; `None` where nothing is replayed, whatever `replay` says.

    >>> print(advice(0.4, bandwidth=96, workers=4, cores=16, device_helps=False, packing_helps=True, replay=0))
    waiting for data takes 40 % of the time at B=96 with 4 workers: try `workers=7`, `upchirp pack`, or `replay=1`
    """
    helping = remedies(
        share,
        workers=workers,
        cores=cores,
        device_helps=device_helps,
        packing_helps=packing_helps,
        replay=replay,
    )
    now = f"{workers} worker{'' if workers == 1 else 's'}"
    return f"waiting for data takes {100 * share:.0f} % of the time at B={bandwidth} with {now}: try {helping}"


def remedies(
    share: float, *, workers: int, cores: int, device_helps: bool, packing_helps: bool, replay: int | None
) -> str:
    """What helps against a share of time spent waiting, as the end of a line; see `advice`.

    >>> remedies(0.75, workers=16, cores=16, device_helps=False, packing_helps=False, replay=0)
    '`replay=3`'
    """
    # Rounded, so that a fifth left does not ask for 21 workers instead of 20.
    factor = round(1 / max(1 - share, 0.01), 6)
    wanted = math.ceil(max(workers, 1) * factor)
    found = []
    if workers < cores:
        found.append(f"`workers={min(wanted, cores)}`")
    if device_helps:
        found.append("`prepare='device'`")
    if packing_helps:
        found.append("`upchirp pack`")
    if replay is not None:
        found.append(f"`replay={min(MOST_REPLAYS, math.ceil((replay + 1) * factor) - 1)}`")
    found = found or ["more CPU cores"]
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])}, or {found[-1]}"

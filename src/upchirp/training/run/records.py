"""What a run writes on its way: the log and settings in its folder, and what a tracker is told."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from upchirp.data import DataIdentity
from upchirp.training.events import Observer
from upchirp.training.folders import run_folder
from upchirp.training.run.log import RunLog
from upchirp.training.run.material import Material
from upchirp.training.run.setup import Setup
from upchirp.training.run.tracking import track


@contextmanager
def recorded(
    setup: Setup,
    settings: Mapping[str, Any],
    material: Material,
    observers: Sequence[Observer],
    *,
    new: bool,
    trained_on: DataIdentity,
) -> Iterator[Sequence[Observer]]:
    """Open what a run writes, for as long as it goes on; the first rank does.

    `new` says whether its folder holds no run yet, and `trained_on` on what it was trained until now.

    Yields:
        The observers, with those that write.
    """
    if not setup.trainer.parallel.ranks.is_first:
        yield observers
        return
    keeping, folder = setup.keeping, setup.folder
    with ExitStack() as stack:
        tracked: tuple[Observer, ...] = ()
        if keeping.track is not None:
            # Before the folder holds a run: what cannot be started leaves none.
            tracker = track(keeping.track, setup, settings, material.train, observers)
            tracked = (stack.enter_context(closing(tracker)),)
        if new:
            run_folder.create(folder, settings, setup.described, material.identity)
        elif trained_on == DataIdentity():
            # A run of an earlier version: from now on it is known.
            run_folder.write_data(folder, material.identity)
        log = RunLog(folder, setup.state.step, evaluates=setup.evaluates, exported=setup.exported)
        stack.enter_context(closing(log))
        yield (log, *observers, *tracked)

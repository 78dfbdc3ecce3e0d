"""Advice for a run that waits for data."""

from upchirp.curriculum import Plan, Step
from upchirp.machine import usable_cores
from upchirp.training.engine.waiting import ADVISED_SHARE, advice
from upchirp.training.run.window import SteadyWait


class Adviser:
    """Watches how long a run waits for data, and advises once in a stage.

    Args:
        plan: what it executes.
        workers: how many processes load images.
        replay_final: whether images are replayed at the final size too.
        device_helps: whether there is a device that could prepare images, and does not.
        packing_helps: whether `upchirp pack` would make the images cheaper to read.
    """

    def __init__(
        self, plan: Plan, *, workers: int, replay_final: bool, device_helps: bool, packing_helps: bool
    ) -> None:
        self.wait = SteadyWait()
        self._workers = workers
        self._replay_final = replay_final
        self._plan = plan
        self._device_helps = device_helps
        self._packing_helps = packing_helps
        self._advised: set[int] = set()

    def advise(self, step: Step, train_seconds: float) -> str | None:
        """What to do about the time spent waiting, after a step; nothing if it is short, or was said in this stage."""
        share = self.wait.take_share(train_seconds)
        if share <= ADVISED_SHARE or step.stage in self._advised:
            return None
        self._advised.add(step.stage)
        replays = step.bandwidth < self._plan.final_size or self._replay_final
        return advice(
            share,
            bandwidth=step.bandwidth,
            workers=self._workers,
            cores=usable_cores(),
            device_helps=self._device_helps,
            packing_helps=self._packing_helps,
            replay=self._plan.stages[step.stage].replay.batches if replays else None,
        )

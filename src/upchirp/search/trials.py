"""Real training for the algorithms: trials become jobs of an executor, outcomes go to the journal."""

import math
import shutil
import signal
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from upchirp.errors import InputError
from upchirp.machine import usable_cores
from upchirp.search.events import Scored, SearchEvent, SearchObserver, Working
from upchirp.search.executors import Executor
from upchirp.search.journal import Journal
from upchirp.search.preparation import Prepared
from upchirp.search.runner import Result, Stopped, TrialJob, read_progress, run_trial
from upchirp.search.trial import Outcome, Trial
from upchirp.search.trial_plan import TrialPlan
from upchirp.training import Interrupted, Noted
from upchirp.training.assets.models import drop_path_share
from upchirp.training.checkpoints import checkpoint

STATES, STOP = "states", "stop"
_POLL_SECONDS = 0.5


@dataclass(eq=False)
class Trials:
    """Trains trials and remembers their outcomes; one that the journal knows is not trained again."""

    prepared: Prepared
    model: nn.Module | None
    """The initial model; None makes the configured one."""
    folder: Path
    journal: Journal
    executor: Executor
    received: Sequence[int]
    """Signals that ask to stop, as they come."""
    observers: Sequence[SearchObserver]
    go_on: str
    """How to go on with the search, as the end of messages."""

    def __post_init__(self) -> None:
        self.planner = self.prepared.planner
        self.config = self.planner.config
        # Tasks may run in processes with another working directory.
        self.folder = self.folder.resolve()
        self.finished = {record["name"]: record for record in self.journal.of("trial")}
        self.total = self.planner.price.cost
        self.started = time.monotonic()
        self.spent_before = self.spent
        self.stop = self.folder / STOP
        self.stop.unlink(missing_ok=True)

    @property
    def spent(self) -> float:
        """Equivalent epochs of the finished trials."""
        return sum(float(record["cost"] + record["tuning_cost"]) for record in self.finished.values())

    @property
    def seconds(self) -> float:
        """Training time of the finished trials."""
        return sum(float(record["seconds"]) for record in self.finished.values())

    def emit(self, event: SearchEvent) -> None:
        """Tell all observers."""
        for observer in self.observers:
            observer(event)

    def __call__(self, trials: Sequence[Trial]) -> list[Outcome]:
        """Train what is not known yet; the outcomes in order.

        Raises:
            InputError: every candidate diverged, or a training could not go on.
            Interrupted: a signal came; every running trial saved its state.
        """
        missing = [trial for trial in trials if trial.name not in self.finished]
        if missing:  # a resumed search comes by the stages that are done once more
            self._prune(trials)
        try:
            self._run(missing)
        except BaseException:
            # The executor waits for what still runs before it lets go: let that save its state and end.
            self.stop.touch()
            raise
        outcomes = [outcome_of(self.finished[trial.name]) for trial in trials]
        final = self.planner.final_size
        needed = self.config.algorithm == "sequential" or all(side == final for side in trials[0].bandwidths)
        if needed and all(math.isinf(outcome.loss) for outcome in outcomes):
            raise InputError(
                "every candidate diverged: search again with a lower `lr_base`, a longer `warmup` or `clip_grad=1`"
            )
        return outcomes

    def clear(self) -> None:
        """Delete all states: a finished search needs none."""
        shutil.rmtree(self.folder / STATES, ignore_errors=True)

    def _run(self, trials: Sequence[Trial]) -> None:
        # The longest first, so that parallel ones end together: at equal compute small inputs take more time than large
        # ones, as they take more steps.
        longest_first = sorted(trials, key=lambda trial: trial.bandwidths[-1], reverse=self.config.axis == "samples")
        waiting = deque((trial, self._job(trial)) for trial in longest_first)
        running: dict[Future[Result], tuple[Trial, TrialJob]] = {}
        failure: Exception | None = None
        stopping = False
        while running or (waiting and not stopping):
            while waiting and not stopping and len(running) < self.config.candidates_at_once:
                trial, job = waiting.popleft()
                running[self.executor.submit(run_trial, job)] = (trial, job)
            done, _ = wait(running, _POLL_SECONDS, FIRST_COMPLETED)
            for future in done:
                trial, job = running.pop(future)
                try:
                    self._record(trial, job.plan, future.result())
                except Stopped:
                    stopping = True
                except BrokenExecutor as error:
                    failure = InputError(
                        f"a process that trained {trial.name} died, mostly because memory ran out (or a script of "
                        "your own lacks `if __name__ == '__main__':`): lower `candidates_at_once`"
                    )
                    failure.__cause__ = error
                except Exception as error:  # the others save their states before it ends the search
                    failure = error
            if (self.received or failure) and not stopping:
                stopping = True
                self.stop.touch()
            self._tell(running.values())
        if isinstance(failure, InputError | OSError):
            raise InputError(f"{' '.join(str(failure).split())}; once that is mended, {self.go_on}") from failure
        if failure is not None:
            raise failure
        if stopping:
            # If no signal came, somebody has made the stop file by hand: it counts as SIGTERM.
            signum = self.received[0] if self.received else signal.SIGTERM
            raise Interrupted(signum, self.folder, len(self.finished), self.go_on)

    def _job(self, trial: Trial) -> TrialJob:
        plan = self.planner.of(trial)
        start = None
        if trial.parent is not None:
            start = checkpoint.step_path(self._state_folder(trial.parent), plan.begin)
        training = self.config.training
        if training.workers is None and self.config.engine == "local":
            # The candidates share the cores.
            training = replace(training, workers=min(16, max(1, usable_cores() // self.config.candidates_at_once)))
        return TrialJob(
            config=training,
            plan=plan,
            drop_path=drop_path_share(self.config.epochs, passes=self.config.axis == "samples"),
            folder=self._state_folder(trial.name),
            start=start,
            stop=self.stop,
            threads=self.config.threads,
            train=self.prepared.train,
            val=self.prepared.val,
            model=self.model,
            task=self.prepared.task,
        )

    def _record(self, trial: Trial, plan: TrialPlan, result: Result) -> None:
        for note in result.notes:
            self.emit(Noted(message=f"{trial.name}: {note}"))
        outcome = result.outcome
        record = {
            "kind": "trial",
            "name": trial.name,
            **asdict(trial),
            "bandwidths": list(trial.bandwidths),
            "accuracy": outcome.accuracy,
            "loss": None if math.isinf(outcome.loss) else outcome.loss,
            "cost": outcome.cost,
            "tuning_cost": plan.spent(plan.end) - plan.training_cost,
            "seconds": result.seconds,
        }
        self.journal.append(record)
        self.finished[trial.name] = record
        self.emit(Scored(trial=trial, outcome=outcome, seconds=result.seconds))

    def _tell(self, running: Collection[tuple[Trial, TrialJob]]) -> None:
        part = sum(job.plan.spent(max(job.plan.begin, read_progress(job.folder))) for _, job in running)
        spent = self.spent + part
        seconds = time.monotonic() - self.started
        done = spent - self.spent_before
        left = seconds / done * max(0.0, self.total - spent) if done > 0 else None
        names = tuple(trial.name for trial, _ in running)
        self.emit(Working(running=names, spent=spent, seconds_left=left))

    def _prune(self, trials: Sequence[Trial]) -> None:
        """Delete the states of trials that lost: what goes on are these trials and what they begin with."""
        needed = {trial.name for trial in trials} | {trial.parent for trial in trials}
        states = self.folder / STATES
        for folder in states.iterdir() if states.is_dir() else ():
            if folder.name not in needed:
                shutil.rmtree(folder)

    def _state_folder(self, name: str) -> Path:
        return self.folder / STATES / name


def outcome_of(record: Mapping[str, Any]) -> Outcome:
    """The outcome that a journal's record holds."""
    loss = math.inf if record["loss"] is None else record["loss"]
    return Outcome(record["accuracy"], loss, record["cost"])

"""A small run, the weights that it ends with when nothing disturbs it, and ways to disturb it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.processes import start
from tests.runs import Observer, differing, notes

from upchirp import InputError, TrainConfig, train
from upchirp.training import Event


class Faults:
    """What the tests of this folder do with a run."""

    def __init__(self, undisturbed: Path) -> None:
        self.undisturbed = undisturbed

    def stopped(self, run: TrainConfig, *observers: Observer, **parts: Any) -> str:
        """The line with which a run stops."""
        with pytest.raises(InputError) as caught:
            train(run, observers=observers, **parts)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def resume(self, run: TrainConfig, **parts: Any) -> list[str]:
        """Go on to the end, with the weights of the undisturbed run; returns what was noted."""
        seen: list[Event] = []
        train(replace(run, resume="auto"), observers=[seen.append], **parts)
        self.assert_same(run.output)
        return notes(seen)

    def assert_same(self, folder: Path | None, other: Path | None = None) -> None:
        assert not differing(folder, other or self.undisturbed)


@pytest.fixture
def faults(uninterrupted: Path) -> Faults:
    return Faults(uninterrupted)


@pytest.fixture
def latest() -> Callable[[TrainConfig], Path]:
    """The latest checkpoint of a run."""

    def find(run: TrainConfig) -> Path:
        assert run.output is not None
        return sorted((run.output / "checkpoints").glob("step_*.pt"))[-1]

    return find


@pytest.fixture
def python() -> Callable[..., tuple[int, list[str]]]:
    """Runs a program in a process of its own; returns the exit code and the lines of its stderr."""

    def run(program: str, *words: object) -> tuple[int, list[str]]:
        done = start("-c", program, *words).finish()
        return done.returncode, done.stderr.splitlines()

    return run


@pytest.fixture
def words() -> Callable[[TrainConfig], Sequence[str]]:
    """The arguments of `upchirp train` for a configuration, by way of a file."""

    def write(run: TrainConfig) -> Sequence[str]:
        from upchirp.training.recipes.config_file import save_config

        assert run.output is not None
        path = run.output.with_name("given.yaml")
        save_config(run.to_flat(), path)
        return ["train", "--config", str(path)]

    return write

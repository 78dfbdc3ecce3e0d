"""A small run, the weights that it ends with when nothing disturbs it, and ways to disturb it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.processes import start

from upchirp import InputError, TrainConfig, train
from upchirp.training import Event, Noted, Stepped

Make = Callable[..., TrainConfig]
Observer = Callable[[Event], None]
WEIGHTS = ("model.safetensors", "model_ema.safetensors")


class Faults:
    """What the tests of this folder do with a run."""

    def __init__(self, undisturbed: Path) -> None:
        self.undisturbed = undisturbed

    def at_step(self, step: int, action: Callable[[], Any]) -> Observer:
        """An observer that does something once, when so many steps are done."""

        def observe(event: Event) -> None:
            if isinstance(event, Stepped) and event.step.index + 1 == step:
                action()

        return observe

    def stopped(self, run: TrainConfig, *observers: Observer, **parts: Any) -> str:
        """The line with which a run stops."""
        with pytest.raises(InputError) as caught:
            train(run, observers=observers, **parts)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def resume(self, run: TrainConfig, **parts: Any) -> list[str]:
        """Go on to the end, with the weights of the undisturbed run; returns what was noted."""
        notes: list[str] = []
        train(
            replace(run, resume="auto"),
            observers=[lambda event: notes.append(event.message) if isinstance(event, Noted) else None],
            **parts,
        )
        assert run.output is not None
        self.assert_same(run.output)
        return notes

    def assert_same(self, folder: Path, other: Path | None = None) -> None:
        for name in WEIGHTS:
            one, two = load_file(folder / name), load_file((other or self.undisturbed) / name)
            assert one.keys() == two.keys()
            different = [key for key in one if not torch.equal(one[key], two[key])]
            assert not different, f"{name}: {different}"


@pytest.fixture(scope="session")
def _undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undisturbed") / "run"


@pytest.fixture
def faults(_undisturbed: Path, config: Make) -> Faults:
    if not _undisturbed.exists():
        train(config(output=str(_undisturbed)))
    return Faults(_undisturbed)


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

"""Engines beyond this machine, with stand-ins for the libraries."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from upchirp import InputError
from upchirp.search.executors import open_executor


class FakeExecutor:
    """Like submitit's: runs at once, and tells of errors as text only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parameters: dict[str, Any] = {}

    def update_parameters(self, **parameters: Any) -> None:
        self.parameters |= parameters

    def submit(self, function: Any, *arguments: Any) -> Any:
        def result() -> Any:
            try:
                return function(*arguments)
            except Exception as error:
                raise RuntimeError(f"job failed: {error}") from None

        return SimpleNamespace(result=result)


def fail() -> None:
    raise InputError("one clear line")


def test_errors_come_through_slurm_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=FakeExecutor))
    with open_executor("slurm", 2, tmp_path, threads=1) as engine:
        assert engine.submit(divmod, 7, 2).result() == (3, 1)
        with pytest.raises(InputError, match="one clear line"):
            engine.submit(fail).result()


@pytest.mark.parametrize(("name", "module"), [("ray", "ray"), ("slurm", "submitit")])
def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"pip install 'upchirp.{name}"), open_executor(name, 1, tmp_path, threads=1):
        pass

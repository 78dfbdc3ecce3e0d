"""A reader of the output that goes away ends no training."""

import os
import sys
from collections.abc import Callable

import pytest

from upchirp import TrainConfig
from upchirp.cli import main
from upchirp.training.recipes.config_file import save_config


def test_a_run_goes_on_when_nobody_reads(
    config: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = config(epochs=1, model_ema=False)
    assert run.output is not None
    given = run.output.with_name("given.yaml")
    save_config(run.to_flat(), given)
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["train", "--config", str(given)]) == 0
        assert sys.stdout is stream
        stream.flush()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("upchirp: cannot write to standard output (Broken pipe): going on without it")
    assert (run.output / "model.safetensors").exists()

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_own_loop_runs_and_takes_a_handful_of_lines(capsys: pytest.CaptureFixture[str]) -> None:
    path = EXAMPLES / "own_loop.py"
    loss = runpy.run_path(str(path))["main"](epochs=2.0, batch_size=16, images=64, workers=0)
    assert loss < 5
    shown = capsys.readouterr().out
    assert "B=24" in shown
    assert sum("# upchirp" in line for line in path.read_text().splitlines()) <= 10

"""The notebook runs from its first cell to its last, cell by cell; what shows the report in it is left out."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from upchirp import TrainConfig

NOTEBOOK = Path(__file__).parents[2] / "examples" / "start.ipynb"


def test_it_goes_from_data_to_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    # Jupyter is not among what the tests need.
    shown: list[str] = []
    display: Any = types.ModuleType("IPython.display")
    display.IFrame = lambda report, width, height: shown.append(report)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    # The suite's runs write no report unless they ask for one; those of a user do.
    monkeypatch.setitem(TrainConfig.__init__.__wrapped__.__kwdefaults__, "report", True)
    monkeypatch.chdir(tmp_path)
    place: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), place)
    told = capsys.readouterr().out
    assert "96 images of rings, stripes" in told and "progress   B  steps" in told
    assert "0.01" in told.partition("progress   B  steps")[2].splitlines()[1], "the plan has not the rate of the run"
    assert "rings" in told.rpartition("top-1 ")[2]
    assert float(told.rpartition("top-1 ")[2].split()[0]) > 60
    assert shown == ["runs/start/report.html"]
    assert "<html" in Path(shown[0]).read_text(encoding="utf-8")

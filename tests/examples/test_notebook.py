"""The notebook runs from its first cell to its last, in a kernel of its own."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "start.ipynb"


@pytest.mark.filterwarnings("ignore")  # of Jupyter's parts
def test_it_goes_from_data_to_a_report(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    told = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "96 images of rings, stripes" in told and "progress   B  steps" in told
    assert float(told.rpartition("top-1 ")[2].split()[0]) > 60
    assert "<html" in (tmp_path / "runs" / "start" / "report.html").read_text(encoding="utf-8")
    assert "report.html" in notebook.cells[-1].outputs[-1].data["text/html"]

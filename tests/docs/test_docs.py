import doctest
import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_there_are_docs():
    assert DOCS


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_examples_run(path):
    failed, _ = doctest.testfile(str(path), module_relative=False, verbose=False)
    assert failed == 0


@pytest.mark.parametrize("path", [ROOT / "README.md", *DOCS], ids=lambda path: path.name)
def test_examples_are_shown_as_code(path):
    # Without a fence each `>` is a quotation.
    outside = path.read_text(encoding="utf-8").split("```")[::2]
    assert not any(">>>" in part for part in outside)


def test_table_of_families_is_the_measured_one():
    record = json.loads((ROOT / "benchmarks" / "results" / "model-families.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    table = text.split("<!-- table: model-families -->\n")[1].split("\n<!-- end of table -->")[0]
    assert table == load(ROOT / "benchmarks" / "model_families.py").markdown(record["models"])
    tried = {family for run in record["runs"] for family in run["families"]}
    assert tried == {row["family"] for row in record["models"]}
    assert all(run["command"].startswith("python benchmarks/model_families.py") for run in record["runs"])


def test_tables_of_scaling_are_the_scripts():
    # benchmarks/results/scaling.json itself is checked by tests/benchmarks.
    record = json.loads((ROOT / "benchmarks" / "results" / "scaling.json").read_text(encoding="utf-8"))
    steps = [{key: value for key, value in row.items() if key != "ranks"} for row in record["steps"]]
    on_64 = [step for step, row in zip(steps, record["steps"], strict=True) if row["ranks"] == 64]
    tables = {
        "table_13": record["table_13"]["rows"],
        "speedups": record["speedups"],
        "steps on 64 ranks": on_64,
    }
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    to_markdown = load(ROOT / "benchmarks" / "scaling.py").table
    for name, rows in tables.items():
        shown = text.split(f"<!-- table: {name} -->\n")[1].split("\n<!-- end of table -->")[0]
        assert shown == to_markdown(rows), name
    assert f"{record['table_13']['latency_us']} us" in text


def test_floors_are_drawn_as_they_are():
    floors = load(ROOT / "benchmarks" / "floors.py")
    text = floors.DOCUMENT.read_text(encoding="utf-8")
    assert floors.drawn(text) == text, "draw them anew by python benchmarks/floors.py"
    assert floors.drawn(text.replace("    search --> compare\n", "")) == text


def test_files_that_the_design_names_are_there():
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    files = {f"/{path.relative_to(ROOT).as_posix()}" for at in ("src", "tests") for path in (ROOT / at).rglob("*.py")}
    for name in re.findall(r"`([\w/]+\.py)`", text):
        assert any(file.endswith(f"/{name}") for file in files), name

"""The documentation builds without a warning: every link, every public name."""

import gc
import multiprocessing
import sys
import warnings
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"


def build(output: Path, told: Path) -> None:
    """Build the pages, and exit as Sphinx does."""
    from sphinx.cmd.build import main

    warnings.simplefilter("ignore")
    gc.disable()
    # All pages are read and all references resolved; writing them, and sources beside them, takes as long again.
    only = ["-b", "dummy", "-D", "extensions=myst_parser,sphinx.ext.autodoc,sphinx.ext.napoleon"]
    with told.open("w") as sys.stderr:
        code = main([*only, "-W", "--keep-going", "-q", "-d", str(output / "trees"), str(DOCS), str(output / "site")])
    sys.exit(code)


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    # In a fork, which has imported by now what the pages document.
    building = multiprocessing.get_context("fork").Process(target=build, args=(tmp_path, tmp_path / "told"))
    building.start()
    building.join()
    assert building.exitcode == 0, (tmp_path / "told").read_text(encoding="utf-8")
    reference = (DOCS / "reference" / "upchirp.rst").read_text(encoding="utf-8")
    assert "upchirp.efficienttrain_plus_plus" in reference and "upchirp.Loader" in reference
    # Every page can be reached from the first one.
    listed = " ".join((DOCS / "index.md").read_text(encoding="utf-8").split("```")[1::2]).split()
    assert {path.stem for path in DOCS.glob("*.md")} - {"index"} <= set(listed)

"""The documentation builds without a warning: every link, every public name."""

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    # All pages are read and all references resolved; writing them, and sources beside them, takes as long again.
    only = ["-b", "dummy", "-D", "extensions=myst_parser,sphinx.ext.autodoc,sphinx.ext.napoleon"]
    command = [sys.executable, "-m", "sphinx", *only, "-W", "--keep-going", "-q", "-d", str(tmp_path / "trees")]
    done = subprocess.run([*command, str(DOCS), str(tmp_path / "site")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = (DOCS / "reference" / "upchirp.rst").read_text(encoding="utf-8")
    assert "upchirp.efficienttrain_plus_plus" in reference and "upchirp.Loader" in reference
    # Every page can be reached from the first one.
    listed = " ".join((DOCS / "index.md").read_text(encoding="utf-8").split("```")[1::2]).split()
    assert {path.stem for path in DOCS.glob("*.md")} - {"index"} <= set(listed)

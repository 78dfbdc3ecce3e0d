"""Sphinx builds the documentation from these pages and the docstrings: `make docs`."""

import inspect
import re
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer

project = "upchirp"
author = "the upchirp authors"
release = metadata.version("upchirp")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"upchirp {release}"
html_static_path = html_css_files = ["wide.css"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
default_role = "literal"
# Two classes may have attributes of one name; what a text means by it, nobody can tell.
suppress_warnings = ["ref.python"]

RESULTS = "benchmarks/results/README.md"
PACKAGES = {
    "upchirp": "The short form: a plan, a loop of one's own, or `train`.",
    "upchirp.curriculum": "Curricula and plans; no torch.",
    "upchirp.spectral": "Low-frequency operators.",
    "upchirp.data": "Sources, requests, loading, augmentation.",
    "upchirp.models": "Making models, and fitting them to an input size.",
    "upchirp.training": "Recipes, the engine, checkpoints, evaluation, whole runs.",
    "upchirp.search": "Finding a curriculum.",
    "upchirp.compare": "Comparing trainings.",
    "upchirp.exporting": "Trained weights for other libraries.",
    "upchirp.lightning": "Lightning's own trainer, by curriculum.",
    "upchirp.dense": "Trained backbones in detection and segmentation.",
    "upchirp.hf": "Hugging Face's own trainer, by curriculum.",
    "upchirp.timm": "timm's own training script, by curriculum.",
}


def _reference() -> None:
    """Write a page for each package with what it makes public, a name where it is first met."""
    folder = Path(__file__).parent / "reference"
    folder.mkdir(exist_ok=True)
    # A name counts where it is met first.
    told: set[int] = set()
    for package, what in PACKAGES.items():
        module = import_module(package)
        lines = [package, "=" * len(package), "", what, ""]
        for name in sorted(module.__all__, key=str.lower):
            thing = getattr(module, name)
            if id(thing) in told or not (inspect.isclass(thing) or inspect.isfunction(thing)):
                continue
            told.add(id(thing))
            kind = "autoclass" if inspect.isclass(thing) else "autofunction"
            lines += [f".. {kind}:: {package}.{name}"]
            lines += ["   :members:", ""] if inspect.isclass(thing) else [""]
        (folder / f"{package}.rst").write_text("\n".join(lines), encoding="utf-8")
    pages = [f"   reference/{package}" for package in PACKAGES]
    head = ["Reference", "=========", "", ".. toctree::", "   :maxdepth: 1", ""]
    (folder.parent / "reference.rst").write_text("\n".join([*head, *pages, ""]), encoding="utf-8")


def _results() -> None:
    """Take the page of measured figures, which lies beside its data, into these pages."""
    text = (Path(__file__).parents[1] / RESULTS).read_text(encoding="utf-8")
    local = re.sub(r"\]\((?!https?:|#)", f"](../{RESULTS.rpartition('/')[0]}/", text)
    (Path(__file__).parent / "results.md").write_text(local, encoding="utf-8")


def _own_links(app: Any, page: str, source: list[str]) -> None:
    """Let links to that page lead to the one here."""
    source[0] = source[0].replace(f"../{RESULTS}", "results.md")


def setup(app: Any) -> None:
    """Show diagrams as text where nothing draws them."""
    app.add_lexer("mermaid", TextLexer)
    app.connect("source-read", _own_links)
    plain: dict[str, list[str]] = {}

    def keep(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
        plain[name] = list(lines)

    def restore(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
        # Napoleon takes what stands before a colon for the type of an attribute.
        if what == "attribute":
            lines[:] = plain[name]

    app.connect("autodoc-process-docstring", keep, priority=100)
    app.connect("autodoc-process-docstring", restore, priority=900)


_reference()
_results()

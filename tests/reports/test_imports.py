"""What draws takes most of a second to import, so nothing imports it before a report is written."""

import ast
from pathlib import Path

import upchirp

SOURCE = Path(upchirp.__path__[0])
LIGHT = {f"upchirp.reports.{name}" for name in ("examples", "loaded", "verdict", "words")}


def imported(path: Path) -> set[str]:
    """What a module imports when it is imported itself."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            found.add(str(node.module))
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


def test_only_light_parts_of_the_reports_are_imported_from_outside() -> None:
    outside = [path for path in SOURCE.rglob("*.py") if path.parent.name != "reports"]
    assert len(outside) > 100
    heavy = {
        f"{path.relative_to(SOURCE)}: {name}"
        for path in outside
        for name in imported(path)
        if name.startswith("upchirp.reports") and name not in LIGHT
    }
    assert not heavy


def test_light_parts_draw_nothing() -> None:
    for name in LIGHT:
        path = SOURCE.parent.joinpath(*name.split(".")).with_suffix(".py")
        assert not {each.split(".")[0] for each in imported(path)} & {"matplotlib", "jinja2", "PIL"}
        assert {each for each in imported(path) if each.startswith("upchirp.reports")} <= LIGHT
    assert imported(SOURCE / "reports/__init__.py") == set()

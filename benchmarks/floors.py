"""Draws which packages import which, for docs/design.md: an arrow where no longer way leads.

Example: `python benchmarks/floors.py` writes the drawings into the document; `--check` says whether they are today's.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import grimp

DOCUMENT = Path(__file__).parents[1] / "docs" / "design.md"
ROOTS = ("upchirp", "upchirp.training")


def imports(root: str) -> dict[str, set[str]]:
    """What each package or module directly in a root imports of the others there, by their names."""
    graph = grimp.build_graph("upchirp")
    children = {child for child in graph.find_children(root) if graph.find_descendants(child)}
    return {
        child.rpartition(".")[2]: {
            other.rpartition(".")[2]
            for other in children - {child}
            if graph.direct_import_exists(importer=child, imported=other, as_packages=True)
        }
        for child in sorted(children)
    }


def direct(edges: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """The arrows that no longer way stands for.

    >>> direct({"a": {"b", "c"}, "b": {"c"}, "c": set()})
    [('a', 'b'), ('b', 'c')]
    """

    def reached(name: str) -> set[str]:
        return edges[name].union(*(reached(other) for other in edges[name]))

    return [
        (name, other)
        for name in sorted(edges)
        for other in sorted(edges[name])
        if not any(other in reached(between) for between in edges[name] - {other})
    ]


def drawing(root: str) -> str:
    """A flowchart in Mermaid's language, which GitHub draws."""
    arrows = "\n".join(f"    {name} --> {other}" for name, other in direct(imports(root)))
    return f"```mermaid\nflowchart TD\n{arrows}\n```"


def drawn(text: str) -> str:
    """A document with the drawings of today between its marks."""
    for root in ROOTS:
        mark = f"<!-- imports of {root} -->\n"
        before, _, rest = text.partition(mark)
        _, _, after = rest.partition("\n<!-- end -->")
        text = f"{before}{mark}{drawing(root)}\n<!-- end -->{after}"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the drawings are old")
    options = parser.parse_args()
    before = DOCUMENT.read_text(encoding="utf-8")
    after = drawn(before)
    if not options.check:
        DOCUMENT.write_text(after, encoding="utf-8")
    return int(options.check and before != after)


if __name__ == "__main__":
    raise SystemExit(main())

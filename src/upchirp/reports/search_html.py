"""The report of a search (to come)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_search_report(summary: Mapping[str, Any], path: Path) -> None:
    """Write it."""

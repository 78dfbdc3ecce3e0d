"""Reports: a comparison, or a search, as one self-contained HTML page with figures."""

from upchirp.reports.examples import ExampleRow, Examples, example_strip
from upchirp.reports.figures import (
    accuracy_against_time,
    accuracy_during_training,
    stage_seconds,
    stages_on_a_time_line,
)
from upchirp.reports.html import verdict, write_report
from upchirp.reports.search_html import search_verdict, write_search_report
from upchirp.reports.style import to_svg

__all__ = [
    "ExampleRow",
    "Examples",
    "accuracy_against_time",
    "accuracy_during_training",
    "example_strip",
    "search_verdict",
    "stage_seconds",
    "stages_on_a_time_line",
    "to_svg",
    "verdict",
    "write_report",
    "write_search_report",
]

"""Reports: a comparison as one self-contained HTML page with figures."""

from upchirp.reports.figures import (
    ExampleRow,
    Examples,
    accuracy_against_time,
    accuracy_during_training,
    example_strip,
    stage_seconds,
    stages_on_a_time_line,
    to_svg,
)
from upchirp.reports.html import verdict, write_report

__all__ = [
    "ExampleRow",
    "Examples",
    "accuracy_against_time",
    "accuracy_during_training",
    "example_strip",
    "stage_seconds",
    "stages_on_a_time_line",
    "to_svg",
    "verdict",
    "write_report",
]

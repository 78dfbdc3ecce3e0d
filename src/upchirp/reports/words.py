"""Numbers as a reader wants them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import compress, repeat
from typing import Any, TypeVar

Value = TypeVar("Value")

SPENT = ("computing", "waiting", "changing_bandwidth", "compiling", "evaluating", "saving")
"""What the time of a run goes to; the first four make up its training time."""


def duration_text(seconds: float) -> str:
    """Seconds in words.

    >>> duration_text(75)
    '1 min 15 s'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def speed_text(per_second: float) -> str:
    """A number of images in a second; slow ones are told apart, too.

    >>> speed_text(1.04), speed_text(0.31), speed_text(1234.5)
    ('1.0', '0.3', '1,234')
    """
    return f"{per_second:,.{0 if per_second >= 10 else 1}f}"


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them.

    >>> listed(["timm", "Composer", "usual"]), listed(["usual"])
    ('timm, Composer and usual', 'usual')
    """
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def counted(run: Mapping[str, Any], values: Iterable[Value]) -> list[Value]:
    """Of one value for each seed of a run of a comparison, those of seeds whose times nothing disturbed.

    >>> counted({"times_count": [True, False]}, [9.0, 14.0]), counted({}, [9.0, 14.0])
    ([9.0], [9.0, 14.0])
    """
    # Summaries of before it was told apart lack it.
    return list(compress(values, run.get("times_count", repeat(True))))


def counted_seconds(run: Mapping[str, Any]) -> list[float]:
    """The training times of those seeds."""
    return counted(run, run["train_seconds"])


_PERCENT = ("top1", "top5", "mAP", "micro_f1", "explained")


def figure_name(name: str) -> str:
    """What a figure of an evaluation is called.

    >>> figure_name("top1"), figure_name("micro_f1"), figure_name("explained")
    ('top-1', 'micro F1', 'explained')
    """
    return {"top1": "top-1", "top5": "top-5", "micro_f1": "micro F1", "best_f1": "best F1"}.get(name, name)


def figure_text(name: str, value: float) -> str:
    """The same with its value.

    >>> figure_text("top1", 51.234), figure_text("loss", 0.5)
    ('top-1 51.23 %', 'loss 0.500')
    """
    return f"{figure_name(name)} {value:.2f} %" if in_percent(name) else f"{figure_name(name)} {value:.3f}"


def score_name(summary: Mapping[str, Any]) -> str:
    """What the scores in the summary of a comparison or a search are called.

    >>> score_name({}), score_name({"figure": "mAP"})
    ('top-1', 'mAP')
    """
    # Summaries of before there were others lack it.
    return figure_name(summary.get("figure", "top1"))


def accuracy_name(summary: Mapping[str, Any]) -> str:
    """The same, in full.

    >>> accuracy_name({}), accuracy_name({"figure": "mAP"})
    ('top-1 accuracy', 'mAP')
    """
    name = score_name(summary)
    return "top-1 accuracy" if name == "top-1" else name


def in_percent(name: str) -> bool:
    """Whether a figure is one of percent."""
    return name in _PERCENT


def budget_text(budget: float) -> str:
    """A budget as a short number.

    >>> budget_text(0.6667), budget_text(1.0)
    ('0.67', '1')
    """
    return f"{round(budget, 2):g}"


def hardware_text(hardware: Mapping[str, Any]) -> str:
    """The machine, in words.

    >>> hardware_text({"cpu": "Some CPU", "cores": 1, "memory_gib": 15.6, "accelerator": None})
    'Some CPU, 1 core, 16 GiB of memory, no accelerator'
    """
    cores = f"{hardware['cores']} core{'' if hardware['cores'] == 1 else 's'}"
    parts = [f"{hardware['cpu']}, {cores}, {hardware['memory_gib']:.0f} GiB of memory"]
    return ", ".join([*parts, hardware["accelerator"] or "no accelerator"])


def shortened(text: str, length: int = 32) -> str:
    """The text with its middle left out if it is longer than `length`.

    >>> shortened("efficienttrain_plus_plus_convnext", 20)
    'efficientt…s_convnext'
    """
    return text if len(text) <= length else f"{text[: length // 2]}…{text[-(length // 2) :]}"


def spent_text(spent: Mapping[str, float]) -> str:
    """Where time went, the largest part first, without what is less than half a percent.

    >>> spent_text({"computing": 60.0, "waiting": 39.0, "changing_bandwidth": 0.9, "saving": 0.1})
    'computing 60 %, waiting for data 39 %, changing bandwidth 1 %'
    """
    whole = sum(spent.values()) or 1.0
    shares = sorted(((100 * seconds / whole, name) for name, seconds in spent.items()), reverse=True)
    return ", ".join(f"{spent_name(name)} {share:.0f} %" for share, name in shares if share >= 0.5)


def spent_name(name: str) -> str:
    """What a part of the time is called."""
    return "waiting for data" if name == "waiting" else name.replace("_", " ")

"""The findings of a comparison, in sentences that know how sure they are."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from upchirp.reports.words import budget_text, duration_text, listed, speed_text


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """Whether each variant was worth it, a line with the number for each; last, what spoils the comparison of times.

    >>> speedup = dict(ratio=1.5, low=1.4, high=1.65, kind="interpolated", baseline_accuracy=51.6, baseline_seconds=300)
    >>> verdict({"runs": [{"name": "constant"}], "speedups": {"linear": speedup}, "disturbed": {}})
    ['linear reached the accuracy of constant (51.60 %) in 1.50× less training time (1.40 to 1.65).']
    """
    baseline = summary["runs"][0]
    if not summary["speedups"]:
        accuracy, time = fmean(baseline["accuracy"]), duration_text(fmean(baseline["train_seconds"]))
        return [f"{baseline['name']} reached {accuracy:.2f} % in {time}; nothing was compared with it."]
    lines = [_of_variant(summary, name, speedup) for name, speedup in summary["speedups"].items()]
    disturbed = {name: found for name, found in summary["disturbed"].items() if found}
    return [*lines, _disturbed(disturbed, baseline["name"])] if disturbed else lines


def remark(summary: Mapping[str, Any]) -> str:
    """What qualifies the verdict."""
    if not summary["speedups"]:
        return ""
    parts = [_about_the_margin(summary)]
    kinds = {speedup["kind"] for speedup in summary["speedups"].values()}
    if "interpolated" in kinds:
        parts.append("The time at equal accuracy is read off a straight line between two budgets.")
    if "at least" in kinds:
        parts.append("“At least”: even the smallest budget beat the baseline, so the curve does not reach down to it.")
    baseline, *others = summary["runs"]
    for run in others:
        timed = summary["speedups"].get(run["name"])
        if run["budget"] == baseline["budget"] and timed and timed["kind"] != "disturbed":
            relative = fmean(run["train_seconds"]) / fmean(baseline["train_seconds"])
            parts.append(f"{_against(run, baseline['name'])}, at the same budget in {relative:.2f}× the time.")
    if not all(summary["speeds_compared"].values()):
        parts.append("The runs are too short to tell whether all of them ran at the same speed.")
    return " ".join(parts)


def _of_variant(summary: Mapping[str, Any], name: str, speedup: Mapping[str, Any]) -> str:
    usual = summary["runs"][0]["name"]
    goal = f"the accuracy of {usual} ({speedup['baseline_accuracy']:.2f} %)"
    own = [run for run in summary["runs"][1:] if run["name"] == name]
    match speedup["kind"]:
        case "disturbed":
            nearest = min(own, key=lambda run: abs(run["budget"] - summary["runs"][0]["budget"]))
            return f"{_against(nearest, usual)}, at budget {budget_text(nearest['budget'])}."
        case "within error":
            return _within_error(name, usual, own, speedup)
        case "not reached":
            best = max(own, key=lambda run: fmean(run["accuracy"]))
            return (
                f"{name} did not reach {goal}: its best was {fmean(best['accuracy']):.2f} % "
                f"in {duration_text(fmean(best['train_seconds']))}."
            )
    return _reached(name, goal, speedup)


def _reached(name: str, goal: str, speedup: Mapping[str, Any]) -> str:
    ratio, low, high = (speedup[key] for key in ("ratio", "low", "high"))
    at_least = speedup["kind"] == "at least"
    span = _interval(low, high) if not at_least else ""
    if f"{ratio:.2f}" == "1.00":
        return f"{name} reached {goal} in the same training time{span}: no speed-up was measured."
    # A lower bound that holds is a speed-up whatever lies above it.
    if not at_least and (low is None or low <= 1) and (high is None or high >= 1):
        times = f"{ratio:.2f}× less" if ratio > 1 else f"{1 / ratio:.2f}× the"
        return f"{name} reached {goal} in {times} training time{span}: no speed-up can be told from that."
    if ratio > 1:
        return f"{name} reached {goal} in {'at least ' if at_least else ''}{ratio:.2f}× less training time{span}."
    longer = f"{'up to ' if at_least else ''}{1 / ratio:.2f}×"
    span = _interval(high and 1 / high, low and 1 / low) if not at_least else ""
    return f"{name} reached {goal}, but took {longer} the training time{span}: no speed-up."


def _interval(low: float | None, high: float | None) -> str:
    if low is None:
        return "" if high is None else f" (at most {high:.2f}×)"
    return f" ({low:.2f}× or more)" if high is None else f" ({low:.2f} to {high:.2f})"


def _within_error(name: str, usual: str, own: Sequence[Mapping[str, Any]], speedup: Mapping[str, Any]) -> str:
    alike = [run for run in own if run["difference"]["points"] >= 0 or not run["difference"]["seen"]]
    least = min(alike, key=lambda run: fmean(run["train_seconds"]))
    ratio = speedup["baseline_seconds"] / fmean(least["train_seconds"])
    times = f"{ratio:.2f}× less" if ratio >= 1 else f"{1 / ratio:.2f}× the"
    return (
        f"No difference seen between {name} at budget {budget_text(least['budget'])} "
        f"({fmean(least['accuracy']):.2f} %) and {usual} ({speedup['baseline_accuracy']:.2f} %): "
        f"{difference_text(least['difference'])} points. It took {times} training time; "
        "the speed-up at equal accuracy is within error."
    )


def _disturbed(found: Mapping[str, Sequence[Mapping[str, Any]]], usual: str) -> str:
    worst = max((each for own in found.values() for each in own), key=lambda each: each["share"])
    return (
        f"The training times of {listed([*found, usual])} cannot be compared: at {worst['bandwidth']} px "
        f"{worst['fast']} ran at {speed_text(worst['fast_speed'])} images/s and {worst['slow']} at "
        f"{speed_text(worst['slow_speed'])}, {100 * worst['share']:.0f} % fewer, so that run was disturbed. "
        "Run them again with nothing else on the machine."
    )


def _about_the_margin(summary: Mapping[str, Any]) -> str:
    seeds, images = len(summary["seeds"]), summary["validation_images"]
    compared = [run["difference"] for run in summary["runs"] if run.get("difference")]
    paired = " compared image by image" if compared and all(each["paired"] for each in compared) else ""
    of = f"{images:,} validation images{paired}"
    if seeds == 1:
        return (
            f"Intervals and margins (±) are for 95 %, from {of} and one seed: how much seeds differ is not known and "
            "not in them, so that a difference of a point or so may still be chance."
        )
    return f"Intervals and margins (±) are for 95 %, from {of} and the spread of {seeds} seeds."


def _against(run: Mapping[str, Any], usual: str) -> str:
    gain = run["difference"]
    if not gain["seen"]:
        return f"No difference between {run['name']} and {usual} is seen ({difference_text(gain)} points)"
    higher = "higher" if gain["points"] >= 0 else "lower"
    return f"{run['name']} ended {abs(gain['points']):.1f} points {higher} than {usual} (±{gain['margin']:.1f})"


def difference_text(difference: Mapping[str, Any]) -> str:
    """A difference with its margin, in points.

    >>> difference_text({"points": -0.42, "margin": 1.9})
    '−0.4 ± 1.9'
    """
    return f"{difference['points']:+.1f} ± {difference['margin']:.1f}".replace("-", "−")

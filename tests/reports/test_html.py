import re
from base64 import b64decode
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from upchirp import InputError
from upchirp.reports.compare_html import write_report
from upchirp.reports.examples import Examples
from upchirp.reports.verdict import verdict

Make = Callable[..., dict[str, Any]]


class Page(HTMLParser):
    """The report as a browser reads it: its elements, its text and the addresses that it loads."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        # Where a name may be broken it still is one.
        self.feed(path.read_text(encoding="utf-8").replace("<wbr>", ""))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def report(tmp_path: Path) -> Callable[..., Page]:
    def write(summary: dict[str, Any], examples: list[Examples] | None = None) -> Page:
        write_report(summary, tmp_path / "report.html", examples=examples or [])
        return Page(tmp_path / "report.html")

    return write


@pytest.fixture
def outlined(report: Callable[..., Page], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Page]:
    """Writes a report whose figures are drawn and left empty: to lay them out is most of what it takes."""
    monkeypatch.setattr("upchirp.reports.page.to_svg", lambda figure: b"<svg></svg>")
    return report


@pytest.fixture
def words(outlined: Callable[..., Page]) -> Callable[..., str]:
    """The text of such a report."""
    return lambda summary: outlined(summary).text


def test_the_report_holds_every_part_in_order_and_loads_nothing(
    make_summary: Make, examples: list[Examples], report: Callable[..., Page], tmp_path: Path
) -> None:
    page = report(make_summary(), examples)
    parts = ["numbers", "accuracy-against-compute", "accuracy-against-time", "accuracy-during-training", "stages"]
    assert page.ids == ["verdict", *parts, "examples", "method"]
    kinds = [address.split(";")[0] for address in page.addresses]
    assert kinds == ["data:image/svg+xml"] * 8 + ["data:image/png"] * 3
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    figures = [b64decode(address.split(",", 1)[1]).decode() for address in page.addresses if "svg" in address[:20]]
    for text in (source, *figures):
        assert not re.search(r"@import|url\((?!#)|(?:src|href)=\"(?!data:|#)", text)
        namespaces = r"xmlns(:\w+)?=\"[^\"]*\"|<!DOCTYPE[^>]*>"
        assert "://" not in re.sub(namespaces, "", text)


def test_the_report_holds_the_numbers(make_summary: Make, words: Callable[..., str]) -> None:
    text = words(make_summary())
    assert "from 2,000 validation images compared image by image and the spread of 2 seeds" in text
    reached = "efficienttrain_plus_plus reached the accuracy of constant (51.25 %) in 1.50× less training time"
    assert f"{reached} (1.40 to 1.62)." in text
    better = (
        "efficienttrain_plus_plus ended 2.8 points higher than constant (±1.2), at the same budget in 1.07× the time."
    )
    assert better in text
    # The rows: budget, equivalent epochs, mean and range of top-1, seconds, time and compute to the baseline and
    # their ratio.
    assert "constant 1 9.00 51.25 ± 1.10 50.75 to 51.75 300.5 5 min 00 s 1.00 1.00 1.00 " in text
    row = r"efficienttrain_plus_plus 0\.5 4\.\d\d 49\.00 ± 1\.10 48\.50 to 49\.50 −2\.2 ± 1\.2 160\.5 2 min 40 s 0\.53"
    assert re.search(rf"{row} 0\.5\d 1\.0\d ", text)
    # Images a second at each bandwidth.
    assert "28 px 46 px 64 px constant 1 – – 360 efficienttrain_plus_plus 0.5 720 540 360 " in text
    # Three quarters and a quarter of the training time, then nothing, nothing, evaluations, nothing.
    assert "constant 1 225.4 75.1 0.0 0.0 7.0 0.0" in text
    # At one accuracy less compute and less time, each with its interval.
    ratio = "1.50× (1.40 to 1.62)"
    assert f"efficienttrain_plus_plus 51.25 constant, budget 1 {ratio} {ratio}" in text
    assert "The variants" not in text  # their names say what they change
    for part in ("upchirp compare --data tiny", "Some CPU, 2 cores, 16 GiB", "no accelerator", "torch 2.6.0"):
        assert part in text
    assert "constant-1/seed1" in text


def test_names_are_escaped(make_summary: Make, examples: list[Examples], report: Callable[..., Page]) -> None:
    attack = "\"'><script>alert(1)</script><img src=http://x onerror=alert(2)>"
    summary = make_summary()
    speedup = summary["speedups"].pop("efficienttrain_plus_plus")
    summary.update(model=attack, data=attack, recipe=attack, command=attack, speedups={attack: speedup})
    summary["hardware"].update(cpu=attack, accelerator=attack)
    summary["versions"][attack] = attack
    summary.update(speeds_compared={attack: True}, disturbed={attack: []})
    for run in summary["runs"][1:]:
        run.update(name=attack, folders=[attack] * 2)
    reading = summary["equal_accuracy"].pop("efficienttrain_plus_plus")
    summary.update(equal_accuracy={attack: reading}, variants=[{"name": attack, "mode": attack}])
    page = report(summary, [Examples(label=attack, rows=examples[0].rows)])
    assert "script" not in page.elements
    assert page.elements.count("img") == 7 and len(page.addresses) == 11
    assert all(address.startswith("data:") for address in page.addresses)
    assert attack in page.text


@pytest.mark.parametrize("missing", [("history",), ("images_per_second", "wait_share", "folders")], ids="-".join)
def test_a_report_does_without_details(
    make_summary: Make, report: Callable[..., Page], missing: tuple[str, ...]
) -> None:
    summary = make_summary()
    for run in summary["runs"]:
        for name in missing:
            del run[name]
    check_without(report(summary), missing)


@pytest.mark.parametrize("missing", [("history",), ("images_per_second", "wait_share", "folders")], ids="-".join)
def test_a_report_does_without_what_details_hold(
    make_summary: Make, outlined: Callable[..., Page], missing: tuple[str, ...]
) -> None:
    summary = make_summary()
    for run in summary["runs"]:
        for name in missing:
            run[name] = type(run[name])()
    check_without(outlined(summary), missing)


def check_without(page: Page, missing: tuple[str, ...]) -> None:
    without_history = "history" in missing
    assert ("not evaluated during training" in page.text) == without_history
    assert len(page.addresses) == (6 if without_history else 8)


def test_what_the_variants_change_is_listed(make_summary: Make, words: Callable[..., str]) -> None:
    summary = make_summary()
    phases = [{"end": 0.5, "bandwidth": 32}, {"end": 1.0, "bandwidth": 64}]
    changed = {"name": "replayed", "budgets": [0.5], "replay": 2, "curriculum": {"phases": phases}}
    summary["variants"] = [{"name": "constant", "curriculum": "constant"}, changed]
    text = words(summary)
    assert "replayed replay: 2, curriculum: phases end 0.5, bandwidth 32; end 1.0, bandwidth 64" in text


def test_one_seed_and_one_curriculum(make_summary: Make, report: Callable[..., Page]) -> None:
    page = report(make_summary(seeds=1, alone=True))
    assert "constant reached 51.25 % in 5 min 00 s; nothing was compared with it." in page.text
    assert " to 51" not in page.text


def test_one_seed_is_said_to_be_one(make_summary: Make, words: Callable[..., str]) -> None:
    assert "one seed: how much seeds differ is not known" in words(make_summary(seeds=1))


@pytest.mark.parametrize(
    ("ratio", "interval", "kind", "expected"),
    [
        (
            1.5,
            (1.4, None),
            "at least",
            "(51.25 %) in at least 1.50× less training time.",
        ),
        (1.004, (0.9, 1.1), "interpolated", "in the same training time (0.90 to 1.10): no speed-up was measured."),
        (0.8, (0.5, 0.9), "interpolated", "but took 1.25× the training time (1.11 to 2.00): no speed-up."),
        (
            1.1,
            (0.9, 1.3),
            "interpolated",
            " less training time (0.90 to 1.30): no speed-up can be told from that.",
        ),
        (1.5, (1.2, None), "interpolated", "in 1.50× less training time (1.20× or more)."),
        (
            1.5,
            (None, 1.7),
            "interpolated",
            " less training time (at most 1.70×): no speed-up can be told from that.",
        ),
        (0.8, (0.7, None), "at least", "but took up to 1.25× the training time: no speed-up."),
        (
            None,
            (None, None),
            "not reached",
            " of constant (51.25 %): its best was 54.00 % in 5 min 20 s.",
        ),
    ],
)
def test_the_verdict_says_plainly_what_was_found(
    make_summary: Make,
    ratio: float | None,
    interval: tuple[float | None, float | None],
    kind: str,
    expected: str,
) -> None:
    summary = make_summary()
    low, high = interval
    summary["speedups"]["efficienttrain_plus_plus"].update(ratio=ratio, low=low, high=high, kind=kind)
    assert verdict(summary)[0].endswith(expected)


def test_the_verdict_has_a_sentence_per_curriculum(make_summary: Make) -> None:
    summary = make_summary()
    summary["speedups"]["linear"] = {**summary["speedups"]["efficienttrain_plus_plus"], "ratio": 1.45}
    assert ["less training time" in line for line in verdict(summary)] == [True, True]


def test_a_speedup_within_error_is_withheld_and_the_cheapest_alike_budget_named(
    make_summary: Make,
) -> None:
    summary = make_summary()
    summary["speedups"]["efficienttrain_plus_plus"].update(kind="within error", ratio=None, low=None, high=None)
    summary["runs"][1]["difference"].update(margin=3.0, seen=False)
    assert verdict(summary) == [
        "No difference seen between efficienttrain_plus_plus at budget 0.5 (49.00 %) and constant (51.25 %): "
        "−2.2 ± 3.0 points. It took 1.87× less training time; the speed-up at equal accuracy is within error."
    ]


def test_a_disturbed_run_is_named_instead_of_a_speedup(make_summary: Make, words: Callable[..., str]) -> None:
    summary = make_summary()
    summary["speedups"]["efficienttrain_plus_plus"].update(kind="disturbed", ratio=None, low=None, high=None)
    found = {"bandwidth": 64, "slow": "a seed 1", "slow_speed": 700.0, "fast": "b seed 0", "fast_speed": 1000.0}
    summary["disturbed"]["efficienttrain_plus_plus"] = [{**found, "share": 0.3}, {**found, "share": 0.2}]
    text = words(summary)
    assert "at 64 px b seed 0 ran at 1,000 images/s and a seed 1 at 700, 30 % fewer" in text
    assert "less training time" not in text and "× the time" not in text
    assert "ended 2.8 points higher than constant (±1.2), at budget 1." in text
    # One run spoils the times of all that are compared with it, which is said once.
    summary["speedups"]["linear"] = summary["speedups"]["efficienttrain_plus_plus"]
    summary["runs"].append({**summary["runs"][-1], "name": "linear"})
    summary["disturbed"]["linear"] = [{**found, "share": 0.3}]
    *_, last = verdict(summary)
    assert last.startswith("The training times of efficienttrain_plus_plus, linear and constant cannot be compared")
    assert "cannot be compared" not in " ".join(verdict(summary)[:-1])


def test_times_in_the_tables_are_of_runs_that_nothing_disturbed(make_summary: Make, words: Callable[..., str]) -> None:
    summary = make_summary(seeds=2)
    usual, other = summary["runs"][0], summary["runs"][-1]
    usual.update(train_seconds=[200.0, 900.0], times_count=[True, False])
    other["train_seconds"] = [100.0, 100.0]
    text = words(summary)
    assert "200.0 3 min 20 s, 1 of 2 seeds 1.00" in text and "100.0 1 min 40 s 0.50" in text
    other["train_seconds"] = [50.0, 50.0]
    assert "50.0 0.25" in words(summary)
    assert text.count("Runs that were disturbed are left out") == 2
    assert "900.0 (disturbed)" in text and "means without the runs that were disturbed" in text
    usual["times_count"] = [False, False]
    assert "– disturbed –" in words(summary)
    for run in summary["runs"]:
        run["times_count"] = [False, False]
    assert "Every run was disturbed, so that no times can be shown." in words(summary)


def test_a_damaged_plan_is_refused(make_summary: Make, tmp_path: Path) -> None:
    summary = make_summary()
    summary["runs"][1]["plan"] = {"cost": "pixels"}
    with pytest.raises(InputError, match="not a plan"):
        write_report(summary, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()

"""What a run leaves for its reader."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from tests.runs import interrupted, notes

from upchirp import TrainConfig, train
from upchirp.training import Event, Noted

Make = Callable[..., TrainConfig]


@pytest.fixture
def small(config: Make) -> Make:
    return lambda **changes: config(model="test_resnet", model_ema=False, epochs=2, evaluations=1, **changes)


def test_a_run_ends_with_a_report(small: Make) -> None:
    result = train(small(report=True, reprob=1.0))
    html = (result.output / "report.html").read_text(encoding="utf-8")
    assert "cat" in html and "dog" in html
    assert f"{result.top1:.2f} % top-1" in html
    assert html.count('class="stage"') == 3
    # 16 validation images, all in the matrix.
    assert sum(int(count or 0) for count in re.findall(r'--share: [\d.]+">(\d*)<', html)) == 16
    assert '<td class="text">reprob</td><td class="text">1.0</td>' in html


def test_the_report_of_a_resumed_run_holds_all_notes_once(small: Make) -> None:
    seen: list[Event] = []
    resumed = interrupted(small(report=True), 3, seen.append)
    train(resumed, observers=(seen.append,))
    assert resumed.output is not None
    (told,) = re.findall(r"<dt>notes</dt><dd>(.*?)</dd>", (resumed.output / "report.html").read_text(encoding="utf-8"))
    assert [unescape(note) for note in told.split("<br>")] == list(dict.fromkeys(notes(seen)))


def test_a_report_that_fails_fails_no_run(small: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no\nfonts")

    monkeypatch.setattr("upchirp.training.jobs.report.report_run", fail)
    events: list[Event] = []
    result = train(small(report=True), observers=(events.append,))
    assert (result.output / "model.safetensors").exists()
    notes = [event.message for event in events if isinstance(event, Noted)]
    assert notes[-1] == "no report.html was written: no fonts"

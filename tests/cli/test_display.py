import io
import os
import re
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from upchirp import Plan, efficienttrain_plus_plus, plan
from upchirp.cli.display import Display
from upchirp.cli.live_line import Pace, duration
from upchirp.training import Evaluated, Evaluation, Finished, Logged, Noted, Started, Stepped, Working


@pytest.fixture
def run() -> Plan:
    return plan(efficienttrain_plus_plus(64, multiple=2), epochs=6, dataset_size=20_000, batch_size=256)


def shown(run: Plan, *, terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=120)
    with Display(console, "title") as display:
        display(Started(plan=run, step=0, output=Path("runs/x")))
        for step in list(run.steps())[:3]:
            display.shown = 0.0
            display(Stepped(step=step, seconds=0.5, wait_seconds=0.1))
        display(Logged(step=run.step(2), loss=3.25, images_per_second=512, wait_share=0.2, train_seconds=1.5))
        result = Evaluation(figures={"top1": 12.5, "top5": 50, "loss": 3.0}, images=100)
        display(Evaluated(step=3, progress=0.1, bandwidth=64, weights="ema", result=result, train_seconds=1.5))
        display(Noted(message="cannot read a[b].jpg"))
        spent = {"computing": 50.0, "waiting": 25.0, "changing_bandwidth": 0.1, "evaluating": 25.0}
        display(Finished(step=3, top1=12.5, best_top1=13.0, train_seconds=75, spent=spent))
    return stream.getvalue()


def test_lines_where_there_is_no_terminal(run: Plan) -> None:
    text = shown(run, terminal=False)
    assert "step 3" in text
    # All of it in images of the first stage, less three steps, at 512 of them per second.
    seconds = (sum(stage.cost for stage in run.stages) / (28 / 64) ** 2 - 3 * 256) / 512
    assert f"512 images/s, waiting for data 20%, {duration(seconds)} left" in " ".join(text.split())
    assert "ema at 64 px: top-1 12.50 %" in text
    assert "note: cannot read a[b].jpg" in text
    assert "1m15s" in text
    assert "all time: computing 50 %, waiting for data 25 %, evaluating 25 %" in " ".join(text.split())


def test_a_live_line_on_a_terminal(run: Plan) -> None:
    text = shown(run, terminal=True)
    assert "stage 1/3" in text
    assert "B=28" in text
    assert "512 img/s" in text
    assert "wait 20 %" in text
    assert "left" in text


def line_of(display: Display, width: int) -> str:
    """What the live line shows on a terminal of that width."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True)
    with console.capture() as captured:
        console.print(display.line)
    return Text.from_ansi(captured.get()).plain.removesuffix("\n")


@pytest.mark.parametrize("title", ["", "efficienttrain_plus_plus-0.6667 seed 1"])
@pytest.mark.parametrize("width", [60, 80, 132])
def test_the_line_fits_and_keeps_its_bar(run: Plan, width: int, title: str) -> None:
    display = Display(Console(file=io.StringIO()), title)
    display(Started(plan=run, step=0, output=Path("runs/x")))
    display.pace = Pace()
    for step in list(run.steps())[:30]:
        display.shown = 0.0
        display(Stepped(step=step, seconds=0.5, wait_seconds=0.01))
    shown = line_of(display, width)
    assert "\n" not in shown and len(shown) < width
    assert "stage 1/3  B=28" in shown and "left" in shown
    assert shown.count("━") + shown.count("╸") + shown.count("╺") >= 8
    # 256 images in half a second.
    assert ("512 img/s" in shown, "wait 2 %" in shown) == (True, width >= 80)
    assert (title in shown) == (width == 132 or not title)
    assert ("B=46 in" in shown) == (width >= 80)


def test_one_of_several_runs_says_which_and_what_is_left_of_all(run: Plan) -> None:
    display = Display(Console(file=io.StringIO()), "run 2/4", in_all=lambda: 3600.0)
    display(Started(plan=run, step=0, output=Path("runs/x")))
    display(Stepped(step=run.step(0), seconds=0.5, wait_seconds=0.01))
    shown = line_of(display, 80)
    assert shown.startswith("run 2/4: stage 1/3") and len(shown) < 80
    assert "512 img/s" in shown and re.search(r" left  (1h00m|59m59s|60m00s) in all$", shown.rstrip())


def test_what_goes_on_besides_steps(run: Plan) -> None:
    for terminal in (False, True):
        stream = io.StringIO()
        with Display(Console(file=stream, force_terminal=terminal, width=80)) as display:
            display(Working(what="scanning the data"))
            display(Working(what="scanning the data", done=1200))
            display(Working(what="measuring", done=3, total=60))
            text = line_of(display, 80)
        assert "measuring: 3 of 60  0s" in text
        assert "scanning the data" in stream.getvalue()
        # Counts change the line of a terminal; elsewhere each would be a line.
        assert stream.getvalue().count("scanning") == 1
        display(Started(plan=run, step=0, output=Path("runs/x")))
        display(Stepped(step=run.step(0), seconds=0.5, wait_seconds=0.1))
        assert "stage 1/3" in line_of(display, 80)


def test_the_line_goes_on_in_long_steps(run: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upchirp.cli.live_line._TICK_SECONDS", 0.01)
    stream = io.StringIO()
    with Display(Console(file=stream, force_terminal=True, width=80)) as display:
        display(Started(plan=run, step=0, output=Path("runs/x")))
        display(Stepped(step=run.step(0), seconds=0.5, wait_seconds=0.1))
        drawn = stream.tell()
        for _ in range(500):
            if stream.tell() > drawn:
                break
            time.sleep(0.01)
        assert stream.tell() > drawn


def test_time_left_is_what_the_plan_still_costs(run: Plan) -> None:
    display = Display(Console(file=io.StringIO()))
    step = run.step(10)
    display.pace.add(Stepped(step=step, seconds=1.0, wait_seconds=0.0))
    cost = sum(stage.cost for stage in run.stages) - 11 * 256 * run.stages[0].cost_per_sample
    expected = cost / (256 * run.stages[0].cost_per_sample)
    assert display.pace.seconds_left(run, 10) == pytest.approx(expected)


def test_names_that_no_terminal_can_show_are_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8", errors="strict")
    name = os.fsdecode(b"caf\xc3\xa9\xff\nnote: all is well\x1b[2J.jpg")
    with Display(Console(file=stream, width=120)) as display:
        display(Noted(message=f"cannot read {name}"))
    stream.flush()
    assert raw.getvalue().decode("utf-8") == "note: cannot read café\\xff\\nnote: all is well\\x1b[2J.jpg\n"

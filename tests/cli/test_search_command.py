"""`upchirp search` from its command line."""

import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from upchirp.cli import main
from upchirp.cli.search_display import SearchDisplay
from upchirp.search.cost import Price
from upchirp.search.events import Begun, Working


@pytest.fixture
def words(image_folder: Path, tmp_path: Path) -> list[str]:
    return [
        "search", "--data", str(image_folder), "--model", "test_resnet", "--final-size", "64", "--recipe", "light",
        "--epochs", "2", "--batch-size", "16", "--workers", "0", "--device", "cpu", "--stages", "3",
        "--candidates", "32", "64", "--tuning-epochs", "0.5", "--output", str(tmp_path / "out"),
    ]  # fmt: skip


def test_dry_run_prints_the_cost_and_nothing_else(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*words, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["trainings"] == 4
    assert told["candidates"] == [32, 64]
    assert told["equivalent_epochs"] == pytest.approx(4 * (2 / 3 + 0.5))
    assert main([*words, "--dry-run"]) == 0
    assert "4.7" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_dry_run_measures_the_time(words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*words, "--dry-run", "--measure", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["device"] == "cpu" and told["seconds"] > 0
    assert main([*words, "--dry-run", "--measure"]) == 0
    shown = capsys.readouterr()
    assert "training time on this machine (cpu)" in shown.out and "measuring the speed at each bandwidth" in shown.err
    assert not (tmp_path / "out").exists()
    assert main([*words, "--measure"]) == 2
    assert "--measure goes with --dry-run" in capsys.readouterr().err


def test_search_then_train_with_what_it_wrote(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*words, "--report"]) == 0
    shown = capsys.readouterr().out
    assert "4 trainings" in shown and "found" in shown and "report.html" in shown
    assert (tmp_path / "out/report.html").stat().st_size > 10_000
    training = [
        word if word != str(tmp_path / "out") else str(tmp_path / "run")
        for word in ["train", *words[1 : words.index("--stages")], "--output", str(tmp_path / "run")]
    ]
    assert main([*training, "--curriculum", str(tmp_path / "out/curriculum.yaml"), "--cost", "flops"]) == 0
    assert "top-1" in capsys.readouterr().out
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert plan["curriculum"] == "searched" and plan["cost"] == "flops"
    # The folder says all else.
    assert main(["search", "--resume", "auto", "--output", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["trainings"] == 4 and len(told["found"]) == 3


def test_print_config_is_a_config(words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*words, "--print-config"]) == 0
    printed = capsys.readouterr().out
    values = yaml.safe_load(printed)
    assert values["cost"] == "flops" and values["deterministic"] is True and values["candidates"] == [32, 64]
    (tmp_path / "config.yaml").write_text(printed)
    assert main(["search", "--config", str(tmp_path / "config.yaml"), "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == values
    # As searches of earlier versions wrote it.
    earlier = {name: value for name, value in values.items() if name != "candidates_at_once"} | {"parallel": 3}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(earlier))
    assert main(["search", "--config", str(tmp_path / "config.yaml"), "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == {**values, "candidates_at_once": 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--curriculum", "linear"], "leave out --curriculum"),
        (["--parallel", "2"], "give --candidates-at-once 2"),
        (["--stages", "1"], "give 2 or more"),
        (["--candidate", "32"], "--candidates"),
        (["--candidates", "x"], "x"),
        (["--objective", "speed"], "accuracy"),
        (["--engine", "cloud"], "local"),
        (["--parallel", "fsdp"], "parallel"),
        (["--data", "nowhere"], "data folder nowhere is missing"),
        (["--model", "resnet5"], "did you mean"),
        (["--candidates", "33", "--model", "test_vit"], "33"),
    ],
)
def test_mistakes_get_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, changes: list[str], message: str
) -> None:
    assert main([*words, *changes]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_display_shows_what_was_spent_and_what_is_to_come() -> None:
    stream = io.StringIO()
    with SearchDisplay(Console(file=stream, force_terminal=True, width=120)) as display:
        price = Price(trainings=4, cost=8.0, exact=False)
        display(Begun(price=price, candidates=(32, 64), finished=1, output=Path("runs/x\x1b[2J")))
        display(Working(running=("32", "64"), spent=2.0, seconds_left=90.0))
    shown = stream.getvalue()
    assert "at most 4 trainings, 8.0 equivalent epochs" in shown
    assert "2.0 of at most 8.0 eq. epochs" in shown and "1m30s left" in shown
    assert "\x1b[2J" not in shown and "\\x1b[2J" in shown

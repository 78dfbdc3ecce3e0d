"""Help: what people use on one screen, and all flags by what they are about."""

import re
import shlex

import pytest

from upchirp import TrainConfig
from upchirp.cli import main
from upchirp.cli.commands import COMMANDS
from upchirp.cli.help_texts import COMMON, EXAMPLES
from upchirp.curriculum import PRESETS
from upchirp.training import RECIPES


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_short_help_fits_a_screen(capsys: pytest.CaptureFixture[str], command: str) -> None:
    text = shown(capsys, command, "--help")
    assert shown(capsys, command, "-h") == text
    lines = text.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) < 80
    assert 8 <= len(re.findall("^  --", text, re.MULTILINE)) <= 10
    examples = [line.removeprefix("  $ ") for line in lines if line.startswith("  $ ")]
    assert len(examples) == 2
    everything = shown(capsys, command, "--help-all")
    for example in examples:
        name, called, *words = shlex.split(example)
        assert (name, called) == ("upchirp", command)
        for flag in (word for word in words if word.startswith("--")):
            assert f"  {flag}" in everything


def test_values_that_are_called_as_a_flag_is_are_no_flags(capsys: pytest.CaptureFixture[str]) -> None:
    told = " ".join(shown(capsys, "train", "--help-all").split())
    assert "`crop` exactly on the device" in told and "on the `cpu`, or the `device`" in told


@pytest.mark.parametrize("command", COMMANDS)
def test_the_whole_help_holds_all_flags_by_group(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = shown(capsys, command, "--help-all")
    flags = re.findall(r"^  (--[a-z-]+)", text, re.MULTILINE)
    assert len(set(flags)) == len(flags)
    assert {f"--{name}" for name in COMMON[f"upchirp {command}"]} <= set(flags)
    for entry in re.findall(r"^  --.*(?:\n    .*)*", text, re.MULTILINE):
        told = re.sub(r" \(default: .*\)$", "", " ".join(entry.split()))
        assert told.endswith("."), f"{told} says nothing"
    assert "None" not in text and max(map(len, text.splitlines())) < 80
    if command in ("train", "finetune", "search", "compare"):
        settings = {f"--{name.replace('_', '-')}" for name in TrainConfig().to_flat()}
        assert settings <= set(flags)
        for name in (*RECIPES, *PRESETS, "imagenet22k"):
            assert re.search(rf"\b{name}\b", text), name
        for group in ("data", "model", "curriculum and budget", "optimization", "augmentation", "loader", "run folder"):
            assert f"\n{group}:\n" in text


def test_commands_have_help() -> None:
    assert COMMON.keys() == EXAMPLES.keys() == {f"upchirp {command}" for command in COMMANDS}

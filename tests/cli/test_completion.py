"""Shells complete what the commands take."""

import shutil
import subprocess
from pathlib import Path

import pytest

from upchirp.cli import main
from upchirp.cli.commands import COMMANDS
from upchirp.cli.completion import flags_of
from upchirp.training import TrainConfig


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def test_bash_completes_commands_flags_values_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "completion").write_text(script("bash", capsys))
    asked = {
        "pr": ["pretrain", "predict", "probe"],
        "train --weight": ["--weights", "--weight-decay"],
        "finetune --regime f": ["finetune", "fixres"],
        "train --recipe convnext_t": ["convnext_tiny"],
        "eval --opt": [],
        "completion ": ["bash", "zsh", "fish"],
        # What is left to bash: files.
        "train --config m": [],
    }
    lines = ["source ./completion"]
    for words in asked:
        typed = ["upchirp", *words.split(" ")]
        lines.append(f"COMP_WORDS=({' '.join(word or repr('') for word in typed)}); COMP_CWORD={len(typed) - 1}")
        lines.append('_upchirp; echo "${COMPREPLY[@]}"')
    command = ["bash", "--norc", "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line.split() for line in done.stdout.splitlines()] == list(asked.values()) and not done.stderr


def test_every_setting_is_a_flag() -> None:
    flags = flags_of("train")
    assert {f"--{name.replace('_', '-')}" for name in TrainConfig().to_flat()} <= flags.keys()
    assert flags["--track"] == ["wandb", "trackio", "mlflow"] and not flags["--lr"]
    assert all(len(flags_of(command)) > 5 for command in COMMANDS)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_theirs(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, capsys)
    assert "weight-decay" in text and "completion" in text
    if shutil.which(shell):
        (tmp_path / "script").write_text(text)
        assert subprocess.run([shell, "-n", str(tmp_path / "script")], check=False).returncode == 0


def test_another_shell_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "csh"]) == main(["completion"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "upchirp: error: there is no script for csh: choose one of bash, zsh, fish"
    assert "no shell is named" in second
    assert main(["completion", "--help"]) == 0 and "~/.zshrc" in capsys.readouterr().out

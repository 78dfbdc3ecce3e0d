import json

import pytest

from upchirp.cli import main


def test_decoded_images_are_shown_where_there_is_replay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ["plan", "--model", "resnet18"]
    assert main(words) == 0
    assert "decoded" not in capsys.readouterr().out
    assert main([*words, "--replay", "1", "--replay-mode", "mixed"]) == 0
    table = capsys.readouterr().out
    assert main([*words, "--replay", "1", "--replay-mode", "mixed", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert "decoded" in table
    assert all(f"{stage['fresh_samples'] / 1e6:.1f} M" in table for stage in stages)
    assert "…" not in table
    assert stages[0]["fresh_samples"] < stages[0]["samples"]
    assert stages[-1]["fresh_samples"] == stages[-1]["samples"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--replay", "auto"], "needs the machine's speed: add --measure"),
        (["--replay", "often"], "neither a whole number nor auto"),
        (["--replay", "-2"], "replay is -2"),
    ],
)
def test_bad_replay_gets_one_line(capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    assert main(["plan", "--model", "resnet18", *flags]) != 0
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told

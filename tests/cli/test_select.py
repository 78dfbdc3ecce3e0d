import json

import pytest

from upchirp import Selection, efficienttrain_plus_plus, plan
from upchirp.cli import main
from upchirp.cli.flags import with_flags
from upchirp.curriculum import expected_savings

WORDS = ["plan", "--model", "resnet18"]


def test_the_plan_says_what_selection_is_expected_to_save(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert main([*WORDS, "--select", "infobatch", "--select-until", "0.8"]) == 0
    text = capsys.readouterr().out
    savings = expected_savings(plan(efficienttrain_plus_plus(), epochs=200), Selection(until=0.8))
    assert with_flags(savings.describe(200))[1:] in text
    assert "InfoBatch alone 1.4x, EfficientTrain++ 1.5x, both 1.7x" in text
    assert main([*WORDS, "--select", "infobatch", "--select-until", "0.8", "--json"]) == 0
    stored = json.loads(capsys.readouterr().out)
    assert (stored["selection"]["prune"], stored["selection"]["until"]) == (0.5, 0.8)
    expected = stored["selection"]["expected"]
    assert expected["epochs"] == pytest.approx(200 * savings.budget)
    assert expected["left_out"] == pytest.approx(savings.left_out)
    assert main([*WORDS, "--json"]) == 0
    del stored["selection"]
    assert json.loads(capsys.readouterr().out) == stored


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--select", "often"], "--select is 'often': choose one of infobatch"),
        (["--select", "infobatch", "--select-prune", "1"], "prune is 1.0: it must lie between 0 and 1"),
        (["--select", "infobatch", "--select-until", "-1"], "until is -1.0: it must be a progress above 0"),
    ],
)
@pytest.mark.parametrize("command", [WORDS, ["train", "--data", "generated"]])
def test_bad_values_get_one_line(
    capsys: pytest.CaptureFixture[str], command: list[str], flags: list[str], message: str
) -> None:
    assert main([*command, *flags]) != 0
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told

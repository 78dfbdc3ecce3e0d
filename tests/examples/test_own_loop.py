import runpy
from pathlib import Path

import pytest
import timm
import torch
from tests.integration.ranks.conftest import finish

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_loop.py"
SMALL = {"model": "test_vit", "size": 64, "epochs": 3.0, "batch_size": 16, "workers": 0}


def distance(one, other):
    return sum((value - other[name]).square().sum() for name, value in one.items()).sqrt()


@pytest.fixture(scope="module")
def uninterrupted(image_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("own_loop") / "whole.pt"
    runpy.run_path(str(EXAMPLE))["main"](str(image_folder), output, **SMALL)
    return torch.load(output, weights_only=True)


def test_goes_on_exactly_where_it_was_interrupted(uninterrupted, image_folder, tmp_path, capsys):
    main = runpy.run_path(str(EXAMPLE))["main"]
    for stop_after in (5, None):
        main(str(image_folder), tmp_path / "cut.pt", **SMALL, stop_after=stop_after)
    cut = torch.load(tmp_path / "cut.pt", weights_only=True)
    assert cut["loader"] == uninterrupted["loader"]
    assert cut["bandwidth"] == SMALL["size"]
    torch.testing.assert_close(cut["model"], uninterrupted["model"], rtol=0, atol=0)
    shown = capsys.readouterr().out
    assert "32 px" in shown or "24 px" in shown
    assert "of 16 validation images at 64 px" in shown


def test_a_network_does_that_is_made_for_no_size(image_folder, tmp_path):
    small = {**SMALL, "model": "test_resnet", "epochs": 1.0}
    assert 0 <= runpy.run_path(str(EXAMPLE))["main"](str(image_folder), tmp_path / "any.pt", **small) <= 100


def test_two_ranks_train_on_the_rows_of_one(uninterrupted, image_folder, tmp_path):
    words = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    finish(2, EXAMPLE, f"--data={image_folder}", f"--output={tmp_path / 'two.pt'}", *words)
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    assert two["loader"] == uninterrupted["loader"]
    torch.manual_seed(0)
    start = timm.create_model("test_vit", img_size=64, num_classes=2).state_dict()
    # In bfloat16 sums in another order round otherwise; two ranks with the same rows end further off than the start is.
    assert distance(two["model"], uninterrupted["model"]) < 0.2 * distance(start, uninterrupted["model"])


def test_the_curriculum_takes_a_handful_of_lines():
    assert sum("# upchirp" in line for line in EXAMPLE.read_text().splitlines()) <= 12

"""Fine-tuning and FixRes, from weights to weights."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.runs import write_folder
from torch import nn

from upchirp import InputError, TrainConfig, train
from upchirp.cli import main
from upchirp.curriculum import constant, efficienttrain_plus_plus, plan
from upchirp.models import create_model, dead_kernel_shares
from upchirp.training import create_optimizer, set_learning_rate
from upchirp.training.events import Noted
from upchirp.training.probing.plan_notes import kernel_note
from upchirp.training.recipes.recipe import Optimization
from upchirp.training.recipes.tuning import freeze

SMALL = ("--batch-size", "16", "--workers", "0", "--device", "cpu", "--evaluations", "1")
VIT = "vit_tiny_patch16_224"
KWARGS = {"embed_dim": 24, "depth": 2, "num_heads": 3}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    """A run folder of two classes at 64 px."""
    output = tmp_path_factory.mktemp("pretrained") / "run"
    config = TrainConfig.from_flat(
        {
            "data": str(image_folder), "model": VIT, "model_kwargs": KWARGS, "final_size": 64, "epochs": 2,
            "batch_size": 16, "workers": 0, "device": "cpu", "recipe": "light", "evaluations": 1, "output": str(output),
        }
    )  # fmt: skip
    return train(config).output


@pytest.fixture(scope="module")
def other_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of three classes."""
    return write_folder(tmp_path_factory.mktemp("three"), train=16, val=4, classes=("ant", "bee", "fly"))


@pytest.mark.parametrize("file", ["model.safetensors", "checkpoint"])
def test_finetune_makes_a_new_head_and_resizes(
    capsys: pytest.CaptureFixture[str], pretrained: Path, other_classes: Path, tmp_path: Path, file: str
) -> None:
    weights = pretrained / file if file != "checkpoint" else next((pretrained / "checkpoints").glob("step_*.pt"))
    words = ["finetune", "--weights", str(weights), "--data", str(other_classes), "--final-size", "96", *SMALL]
    words += ["--recipe", "light", "--epochs", "1", "--output", str(tmp_path / "run")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert f"starting from {weights}, resized from 64 px, with a new head" in told
    # 3 steps at a rate of 9e-6.
    assert "the new head moves by about 1e-05 in 3 steps" in told and "try --lr 1e-03" in told
    before, after = load_file(pretrained / "model.safetensors"), load_file(tmp_path / "run/model_ema.safetensors")
    assert after["head.weight"].shape == (3, 24) and after["pos_embed"].shape == (1, 37, 24)
    # A few steps at 5e-5 and less leave the weights nearly where they were.
    torch.testing.assert_close(after["blocks.0.mlp.fc1.weight"], before["blocks.0.mlp.fc1.weight"], rtol=0, atol=1e-3)
    assert not torch.equal(after["blocks.0.mlp.fc1.weight"], before["blocks.0.mlp.fc1.weight"])
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert [stage["bandwidth"] for stage in plan["stages"]] == [96]


def test_fixres_tunes_head_and_norms_only(pretrained: Path, image_folder: Path, tmp_path: Path) -> None:
    words = ["finetune", "--fixres", "--weights", str(pretrained / "model.safetensors"), "--data", str(image_folder)]
    assert main([*words, "--final-size", "96", "--epochs", "1", *SMALL, "--output", str(tmp_path / "run")]) == 0
    before, after = load_file(pretrained / "model.safetensors"), load_file(tmp_path / "run/model.safetensors")
    changed = {name for name in after if name != "pos_embed" and not torch.equal(before[name], after[name])}
    norms = {f"{layer}.{kind}" for layer in ("norm", "blocks.0.norm1", "blocks.1.norm2") for kind in ("weight", "bias")}
    assert {"head.weight", "head.bias"} | norms <= changed
    assert not any("mlp" in name or "attn" in name or "patch_embed" in name for name in changed)
    assert after["pos_embed"].shape == (1, 37, 24)


def test_fine_tuning_resumes_exactly(config: Callable[..., TrainConfig], pretrained: Path, tmp_path: Path) -> None:
    values = {
        "model": VIT, "model_kwargs": KWARGS, "weights": str(pretrained / "model.safetensors"), "regime": "finetune",
        "curriculum": "constant", "layer_decay": 0.7, "checkpoint_interval": 3, "checkpoint_keep": 9, "drop": 0.0,
    }  # fmt: skip
    whole = train(config(**values, output=str(tmp_path / "whole")))
    middle = tmp_path / "whole/checkpoints/step_000000003.pt"
    resumed = train(config(**values, output=str(tmp_path / "resumed"), resume=str(middle)))
    a, b = (load_file(result.output / "model.safetensors") for result in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_kept_head_needs_the_same_classes(pretrained: Path, image_folder: Path, other_classes: Path) -> None:
    base = {"weights": str(pretrained / "model.safetensors"), "regime": "fixres", "final_size": 64, "batch_size": 16}
    with pytest.raises(InputError, match="is for 2 classes but the data has 3"):
        train(TrainConfig.from_flat({**base, "data": str(other_classes), "workers": 0}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["finetune", "--data", "IMAGES"],
            "the regime finetune starts from trained weights",
        ),
        (["finetune", "--weights", "none.pth", "--data", "IMAGES"], "none.pth: there is no such file"),
        (
            ["finetune", "--weights", "W", "--model", "resnet10t", "--data", "IMAGES"],
            f"it belongs to another model, {VIT}",
        ),
        (
            ["finetune", "--weights", "W", "--data", "IMAGES", "--final-size", "70"],
            "nearest that work are 64 and 80",
        ),
        (["finetune", "--fixres", "--regime", "finetune", "--weights", "W"], "leave it out"),
        (["train", "--keep-head", "--data", "IMAGES"], "there is no classifier to keep"),
        (["train", "--regime", "imagenet"], "unknown regime 'imagenet': choose one of"),
        (["train", "--layer-decay", "1.5"], "--layer-decay is 1.5"),
        (["eval", "--weights", "W", "--data", "IMAGES", "--sizes", "64", "70"], "cannot take images of side 70"),
        (["eval", "--weights", "W", "--data", "THREE", "--sizes", "64"], "unknown to the weights (ant, bee, fly)"),
        (["eval", "--weights", "W", "--data", "IMAGES", "--sizes", "64", "--final-size", "64"], "not both"),
        (["eval", "--weights", "W", "--data", "IMAGES", "--sizes", "0"], "--sizes is 0: it must be 1 or more"),
    ],
)
def test_bad_input_gets_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    pretrained: Path,
    image_folder: Path,
    other_classes: Path,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"W": str(pretrained / "model.safetensors"), "IMAGES": str(image_folder), "THREE": str(other_classes)}
    assert main([places.get(word, word) for word in words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    # Before it stands what an evaluation was at, at most.
    assert not any("rror" in line for line in lines[:-1])
    assert list(tmp_path.iterdir()) == []


def test_eval_prints_a_row_for_each_size(
    capsys: pytest.CaptureFixture[str], pretrained: Path, image_folder: Path
) -> None:
    words = ["eval", "--weights", str(pretrained / "model.safetensors"), "--data", str(image_folder), "--workers", "0"]
    assert main([*words, "--sizes", "48", "64", "96"]) == 0
    table = capsys.readouterr().out
    assert all(f"{size} px" in table for size in (48, 64, 96))
    assert main([*words, "--sizes", "48", "64", "--json"]) == 0
    several = json.loads(capsys.readouterr().out)
    assert [result["size"] for result in several] == [48, 64]
    assert main([*words, "--final-size", "64", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == pytest.approx(several[1])


def test_layer_decay_shares_out_the_learning_rate() -> None:
    model = create_model(VIT, num_classes=2, final_size=32, **KWARGS)
    optimizer = create_optimizer(model, Optimization(layer_decay=0.5), learning_rate=1.0)
    set_learning_rate(optimizer, 0.8)
    rates = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            rates[id(parameter)] = group["lr"]
    assert len(rates) == len(list(model.parameters()))
    # BEiT's rule, as timm groups a ViT: embedding, each block, head.
    for layer, power in ((model.head, 0), (model.blocks[1].mlp.fc1, 1), (model.blocks[0].mlp.fc1, 2)):
        assert rates[id(layer.weight)] == pytest.approx(0.8 * 0.5**power)
    assert rates[id(model.patch_embed.proj.weight)] == pytest.approx(0.8 * 0.5**3)


@pytest.mark.parametrize(
    ("name", "head", "norms"),
    [
        ("resnet10t", "fc", r"conv1\.[14]\.|.*bn\d\.|.*downsample\.2\."),
        ("convnext_atto", "head.fc", r"stem\.1\.|stages\.[123]\.downsample\.0\.|.*norm\."),
        # Not the scales of its residuals and activations.
        ("caformer_s18", "head.fc.fc2", r".*norm\d?\."),
    ],
)
def test_freeze(name: str, head: str, norms: str) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=2)
    freeze(model, "head_and_norms")
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad == (key.startswith(f"{head}.") or bool(re.match(norms, key))), key


def test_freeze_needs_to_know_the_head() -> None:
    freeze(nn.Linear(1, 1), "all")
    with pytest.raises(InputError, match="does not say which layer is its classifier"):
        freeze(nn.Linear(1, 1), "head_and_norms")


def test_a_small_network_is_told_of_kernels_without_gradient(
    config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    notes: list[str] = []
    kwargs = {"depths": [1, 1, 1, 1], "dims": [4, 4, 4, 4]}
    settings = config(model="convnext_atto", model_kwargs=kwargs, final_size=128, epochs=1, micro_batch=32)
    train(settings, observers=[lambda event: notes.append(event.message) if isinstance(event, Noted) else None])
    # 32, 96 and 128 px: the last maps are 1 pixel wide at first.
    assert any("of the 7 x 7 kernel of stages.3.blocks.0.conv_dw" in note and "no gradient" in note for note in notes)


def test_nothing_is_told_of_the_rims_of_small_kernels() -> None:
    model = create_model("resnet10t", channels=[4, 4, 4, 4], num_classes=2)
    run = plan(constant(64), epochs=1, dataset_size=64, batch_size=32)
    assert kernel_note(run, model) is None
    early = plan(efficienttrain_plus_plus(64), epochs=1, dataset_size=64, batch_size=16)
    # Its last maps are 1 pixel wide at first, and it trains well all the same.
    assert {each.kernel for each in dead_kernel_shares(model, early.bandwidths[0], 64)} == {(3, 3)}
    assert kernel_note(early, model) is None


def test_a_config_of_another_regime_is_refused(capsys: pytest.CaptureFixture[str], pretrained: Path) -> None:
    """A run's own config.yaml would silently bring back the rates that it was trained with."""
    words = [
        "finetune",
        "--config",
        str(pretrained / "config.yaml"),
        "--weights",
        str(pretrained / "model.safetensors"),
    ]
    assert main([*words, "--print-config"]) == 2
    assert "has the regime finetune, but" in capsys.readouterr().err


def test_a_resumed_run_knows_its_model_without_the_weights(
    capsys: pytest.CaptureFixture[str], pretrained: Path, image_folder: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes((pretrained / "model.safetensors").read_bytes())
    # The weights give the final size too.
    words = ["finetune", "--weights", str(weights), "--data", str(image_folder), *SMALL]
    words += ["--recipe", "light", "--epochs", "1", "--output", str(tmp_path / "run")]
    assert main(words) == 0
    assert json.loads((tmp_path / "run/plan.json").read_text())["final_size"] == 64
    weights.unlink()
    assert main([*words, "--resume", "auto"]) == 0
    assert "was finished before" in capsys.readouterr().out


def test_weights_that_name_no_model(capsys: pytest.CaptureFixture[str], pretrained: Path, tmp_path: Path) -> None:
    torch.save(load_file(pretrained / "model.safetensors"), tmp_path / "plain.pth")
    assert main(["finetune", "--weights", str(tmp_path / "plain.pth"), "--data", "x"]) == 2
    assert "does not say which model it is of: name it by --model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "inside", ["model_ema.safetensors", "model.safetensors", "checkpoints/step_000000012.pt", None]
)
def test_a_run_folder_for_weights_names_the_file_in_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, inside: str | None
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    names = ["model_ema.safetensors", "model.safetensors", "checkpoints/step_000000012.pt"]
    for name in names[names.index(inside) :] if inside else ():
        (run / name).touch()
    wanted = f"give the weights in it, {run / inside}" if inside else "give a file of weights"
    image = tmp_path / "image.png"
    Image.new("RGB", (4, 3)).save(image)
    exported = ["export", "--output", str(tmp_path / "a.safetensors")]
    for words in (["finetune", "--data", "x"], ["eval", "--data", str(image)], ["predict", str(image)], exported):
        assert main([*words, "--weights", str(run)]) == 2
        assert capsys.readouterr().err.splitlines()[-1] == f"upchirp: error: {run} is a folder: {wanted}"
    file = run / "config.yaml"
    file.touch()
    assert main(["eval", "--run", str(file)]) == 2
    assert "config.yaml is a file, and --run names a folder: give the file by --weights" in capsys.readouterr().err

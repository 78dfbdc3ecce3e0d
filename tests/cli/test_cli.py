"""The command line: what it prints, how it refuses, and its exit codes."""

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import timm
import torch
import yaml

from upchirp import TrainConfig
from upchirp.cli import main
from upchirp.cli.parsing import parse_training
from upchirp.cli.train import TrainCommand
from upchirp.models import count_flops, count_parameters, create_model, flops_table
from upchirp.models.meta import shapes_only

SMALL = ("--final-size", "64", "--batch-size", "32", "--workers", "0", "--device", "cpu", "--recipe", "light")


WORKING = ("scanning the data", "making the model")


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a command ends with when it refuses, after what it was working on."""
    code = main(words)
    captured = capsys.readouterr()
    assert code == 2, captured
    lines = [line for line in captured.err.splitlines() if line not in WORKING]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("upchirp: error: ")
    return lines[0]


# Table 7: parameters (M), FLOPs at 224 (G), computation speed-up.
TABLE_7 = {
    "resnet50": (26, 4.1, 1.49),
    "convnext_tiny": (29, 4.5, 1.49),
    "convnext_small": (50, 8.7, 1.49),
    "convnext_base": (89, 15.4, 1.49),
    "deit_tiny_patch16_224": (5, 1.3, 1.56),
    "deit_small_patch16_224": (22, 4.6, 1.52),
    "pvt_tiny": (13, 1.9, 1.51),
    "pvt_small": (25, 3.8, 1.51),
    "pvt_medium": (44, 6.7, 1.51),
    "pvt_large": (61, 9.8, 1.51),
    "swin_tiny_patch4_window7_224": (28, 4.5, 1.51),
    "swin_small_patch4_window7_224": (50, 8.7, 1.51),
    "swin_base_patch4_window7_224": (88, 15.4, 1.50),
    "cswin_tiny_224": (23, 4.3, 1.52),
    "cswin_small_224": (35, 6.9, 1.52),
    "cswin_base_224": (78, 15.0, 1.51),
    "caformer_s18": (26, 4.1, 1.52),
    "caformer_s36": (39, 8.0, 1.52),
    "caformer_m36": (56, 13.2, 1.51),
}


PLANNED = (
    "resnet50", "convnext_tiny", "deit_tiny_patch16_224", "pvt_tiny", "swin_tiny_patch4_window7_224", "cswin_tiny_224",
    "caformer_s18",
)  # fmt: skip
"""One of each family, whose modules decide what a smaller input saves; of the others the cost at 224 px."""


def stages_of(model: str) -> tuple[tuple[float, int], ...]:
    # Appendix A.1: ConvNeXt skips 96.
    return ((0.6, 160), (0.4, 224)) if "convnext" in model else ((0.2, 96), (0.4, 160), (0.4, 224))


def is_of_table_7(model: str, *, params: int, flops: float) -> bool:
    tolerance: dict[str, float] = {"rel": 0.03} if model.startswith(("pvt", "cswin")) else {"abs": 0.1}
    expected = TABLE_7[model]
    return (params / 1e6, flops / 1e9) == (
        pytest.approx(expected[0], abs=1), pytest.approx(expected[1], **tolerance)
    )  # fmt: skip


@pytest.mark.parametrize("model", PLANNED)
def test_plan_gives_table_7(capsys: pytest.CaptureFixture[str], model: str) -> None:
    assert main(["plan", "--model", model, "--json"]) == 0
    priced = json.loads(capsys.readouterr().out)
    assert is_of_table_7(model, params=priced["params"], flops=priced["flops"])
    assert priced["speedup"] == pytest.approx(TABLE_7[model][2], rel=0.01)
    stages = stages_of(model)
    assert [stage["bandwidth"] for stage in priced["stages"]] == [side for _, side in stages]
    # By hand: 300 passes against 200 equivalent epochs of Table 6.
    with torch.device("meta"):
        cost = flops_table(create_model(model), [side for _, side in stages])
    # Of an equivalent epoch: a stage with share s draws s / (B/224)^2 samples.
    epoch = sum(share * cost[side] / (side / 224) ** 2 for share, side in stages)
    assert priced["speedup"] == pytest.approx(1.5 * cost[224] / epoch, rel=1e-3)


@pytest.mark.parametrize("model", sorted(TABLE_7.keys() - set(PLANNED)))
def test_the_other_rows_of_table_7(model: str) -> None:
    with shapes_only():
        made = timm.create_model(model)
    assert is_of_table_7(model, params=count_parameters(made), flops=count_flops(made, 224))


def test_plan_of_a_regime(capsys: pytest.CaptureFixture[str]) -> None:
    # Table 12: half the baseline's 150 epochs.
    assert main(["plan", "--model", "resnet50", "--regime", "imagenet22k", "--json"]) == 0
    priced = json.loads(capsys.readouterr().out)
    assert (priced["dataset_size"], priced["baseline_epochs"]) == (14_197_122, 150)
    assert priced["equivalent_epochs"] == pytest.approx(75, rel=1e-3)
    assert priced["speedup"] == pytest.approx(2.0, rel=0.02)
    assert main(["plan", "--model", "resnet18", "--regime", "finetune", "--final-size", "384", "--json"]) == 0
    tuned = json.loads(capsys.readouterr().out)
    assert [stage["bandwidth"] for stage in tuned["stages"]] == [384]


def test_plan_json_has_the_documented_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--model", "resnet18", "--json"]) == 0
    priced = json.loads(capsys.readouterr().out)
    assert {"stages", "equivalent_epochs", "params", "flops", "speedup"} <= priced.keys()
    stage = priced["stages"][1]
    assert stage["progress"] == [0.2, 0.6]
    assert stage["magnitude"] == pytest.approx([1.8, 5.4])
    assert stage["samples"] == stage["steps"] * stage["batch_size"]
    assert stage["learning_rate"] == 4e-3
    assert [stage["micro_batch"] for stage in priced["stages"]] == [2048, 512, 512]


def test_plan_table_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "plan",
                "--model",
                "resnet18",
                "--final-size",
                "64",
                "--epochs",
                "10",
                "--dataset-size",
                "20000",
                "--batch-size",
                "256",
            ]
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert "the computation of 10.0 epochs as usual" in shown
    assert "28" in shown


def test_plan_counts_the_images_and_says_what_the_data_decide(
    capsys: pytest.CaptureFixture[str], image_folder: Path
) -> None:
    words = ["plan", "--data", str(image_folder), "--model", "test_resnet", "--final-size", "64", "--epochs", "6"]
    assert main([*words, "--json"]) == 0
    priced = json.loads(capsys.readouterr().out)
    # 32 + 32 images of two classes.
    assert (priced["images"], priced["classes"]) == (64, 2)
    assert [line.split(":")[0] for line in priced["chosen"]][:3] == [
        "recipe light", "learning rate 0.0015", "batch size 16",
    ]  # fmt: skip
    # Six epochs are six epochs, not 50 times less than the paper's 300; the first layers pad, so not to the digit.
    assert priced["baseline_epochs"] == priced["equivalent_epochs"]
    assert priced["speedup"] == pytest.approx(1, abs=0.15)
    assert main([*words, "--baseline-epochs", "12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["speedup"] == pytest.approx(2 * priced["speedup"], rel=0.05)
    assert main(words) == 0
    assert "64 images of 2 classes" in capsys.readouterr().out


def test_a_batch_that_cannot_be_computed_in_parts_is_refused_before_the_model_is_made(
    capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path
) -> None:
    words = ["--data", str(image_folder), "--model", "test_vit", "--output", str(tmp_path / "run")]
    # A prime.
    assert "no divisor" in refusal(capsys, "train", *words, "--batch-size", "1021")


def test_plan_measures_time_and_memory_here(capsys: pytest.CaptureFixture[str], image_folder: Path) -> None:
    words = ["plan", "--data", str(image_folder), "--model", "test_resnet", "--final-size", "64", "--workers", "0"]
    words += ["--device", "cpu", "--measure"]
    assert main([*words, "--epochs", "6", "--json"]) == 0
    priced = json.loads(capsys.readouterr().out)
    spent = sum(s["samples"] / priced["needs"]["images_per_second"][str(s["bandwidth"])] for s in priced["stages"])
    assert priced["needs"]["seconds"] == pytest.approx(spent)
    assert priced["needs"]["memory_gib"] > 0.1
    assert main([*words, "--time-budget", "5s"]) == 0
    assert "of training without evaluations" in capsys.readouterr().out


def test_plan_takes_a_curriculum_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("phases: [{end: 0.5, bandwidth: 112}, {end: 1.0, bandwidth: 224}]")
    assert main(["plan", "--model", "resnet18", "--curriculum", str(path), "--json"]) == 0
    assert [stage["bandwidth"] for stage in json.loads(capsys.readouterr().out)["stages"]] == [112, 224]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "did you mean train"),
        (["plan"], "no model"),
        (["pretrain", "--data", "nowhere"], "no model: name any of timm's by --model, for a start vit_small"),
        (["plan", "--model", "resnet5"], "resnet50"),
        (["plan", "--model", "resnet50", "--curriculum", "efficienttrain++"], "did you mean efficienttrain"),
        (["plan", "--model", "resnet50", "--epochs", "0.001"], "too small for one step"),
        (["plan", "--model", "resnet50", "--epochs", "-3"], "epochs"),
        (["plan", "--model", "resnet50", "--epochs", "many"], "--epochs"),
        (["plan", "--model", "resnet50", "--epoch", "3"], "--epoch"),
        (["plan", "--model", "resnet50", "--baseline-epochs", "0"], "baseline epochs"),
        (["plan", "--model", "resnet50", "--measure"], "give the images by --data"),
        (["plan", "--model", "resnet50", "--time-budget", "2h"], "add --measure"),
        (["plan", "--model", "resnet50", "--data", "x", "--dataset-size", "9"], "counted in x"),
        (["plan", "--model", "swin_tiny_patch4_window7_224", "--final-size", "100"], "96 and 128"),
        (["train", "--model", "resnet18"], "no data"),
        (["train", "--data", "nowhere", "--model", "test_vit"], "data folder nowhere is missing"),
        (["train", "--mixupp", "0.2", "--modle=x"], "unknown flag --mixupp, --modle: did you mean --"),
        # By the names of other tools, and of our other commands.
        (["train", "--img-size", "64"], "unknown flag --img-size: did you mean --final-size? (all"),
        (["plan", "--wd", "0", "--learning-rate", "1"], "did you mean --weight-decay or --lr? (all"),
        (["eval", "--batch", "1"], "unknown flag --batch: did you mean --batch-size? (all"),
        (["finetune", "--run", "x"], "unknown flag --run: did you mean --weights RUN/model.safetensors? (all"),
        (["train", "--pretrain"], "unknown flag --pretrain: did you mean --pretrained? (all"),
        # Mistyped, by our names and by theirs.
        (["train", "--lerning-rate", "1"], "unknown flag --lerning-rate: did you mean --lr? (all"),
        (["train", "--image_sise=3"], "unknown flag --image_sise: did you mean --final-size? (all"),
        (["train", "--no-amq"], "unknown flag --no-amq: did you mean --no-amp? (all"),
        (["train", "-model", "x"], "unknown flag -model: did you mean --model? (all"),
        (["train", "."], "unknown word .: did you mean --data .? (all"),
        (["export", "."], "unknown word .: did you mean --run .? (all"),
        (["train", "--reprob", "3"], "error: --reprob is 3.0: it is a probability"),
        (["train", "--seed", str(1 << 64)], "seed is 18446744073709551616: give a whole number from 0 to 1844"),
        (["compare", "--seeds", "0", str(1 << 64), "--output", "x"], "seed is 18446744073709551616"),
        # Before the data are looked for.
        (["train", "--data", "nowhere", "--workers", "999", "--model", "test_vit"], "workers is 999"),
        (["pack", "--data", "generated", "--output", "x", "--workers", "999"], "workers is 999"),
        (["compare", ".", "--data", "generated"], "is a folder: name an experiment's file"),
        (["compare", "--seeds", "0", "1", "none.yaml", "--data", "generated"], "cannot read the config none.yaml"),
        (["compare", "a.yaml", "--data", "generated", "b.yaml"], "a.yaml and b.yaml: an experiment is one file"),
        (["compare", "a.yaml", "--config=b.yaml"], "a.yaml and --config=b.yaml: an experiment is one file"),
        (["similarity", "a", "--images", "4", "b", "c"], "3 runs: name two run folders"),
        (["similarity", "a", "--images", "4", "b"], "a holds no run"),
        (["predict", "--csv", "out.csv", "--run", "r", "a.png"], "--csv prints, and `> out.csv` keeps what it prints"),
        (["train", "--config", "none.yaml"], "cannot read the config none.yaml: there is no such file"),
        (["train", "--config"], "--config needs a value"),
        (["train", "--evaluations", "ten"], "--evaluations is 'ten': expected a whole number"),
        (["train", "--batch-size", "2.5"], "--batch-size is '2.5': expected a whole number"),
        (["train", "--lr", "1e-x"], "--lr is '1e-x': expected a number"),
        (["train", "--epochs", "some"], "--epochs is 'some': expected a number"),
        (["eval", "--sizes", "64", "big"], "--sizes is '64', 'big': expected whole numbers"),
        (["train", "--opt-betas", "0.9", "x"], "--opt-betas is '0.9', 'x': expected numbers"),
        (["train", "--early-batch", "9", "x"], "error: --early-batch: 'x' is neither a whole number nor auto (all"),
        (["train", "--device", "tpu"], "--device is 'tpu': give cpu, cuda, cuda:1"),
        (["train", "--recipe", "diet"], "unknown recipe 'diet'"),
        (
            ["train", "--data", "generated", "--resume", "missing.pt"],
            "cannot read the checkpoint missing.pt: there is no such file",
        ),
        (["eval"], "nothing to evaluate"),
        (["eval", "--run", "nowhere"], "holds no run"),
        (["eval", "--model", "resnet18"], "no weights"),
        (["compare", "--budgets", "0.5", "0.5", "--output", "x"], "each once"),
        (["compare", "--resume", "x.pt", "--output", "x"], "no single checkpoint"),
        (["compare", "--data", "generated"], "no output"),
        (["compare", "--curricula", "constant", "--output", "x"], "a baseline and at least one other"),
        (["compare", "--budgets", "0", "--output", "x"], "budgets"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refusal(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_config_file_with_an_unknown_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("batchsize: 3")
    assert "did you mean batch_size" in refusal(capsys, "train", "--config", str(path))
    path.write_text("lerning_rate: 0.1")
    assert "did you mean lr?" in refusal(capsys, "train", "--config", str(path))
    path.write_text("stage: 3")
    assert "did you mean stages?" in refusal(capsys, "search", "--config", str(path))


def test_flags_win_over_the_file_and_the_file_over_the_recipe(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("model: deit_tiny_patch16_224\nmixup: 0.3\ncutmix: 0.3\n")
    assert main(["train", "--config", str(path), "--mixup", "0.1", "--print-config"]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert (values["mixup"], values["cutmix"], values["clip_grad"]) == (0.1, 0.3, 5.0)


def test_settings_can_be_printed_where_the_data_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "nowhere", "--model", "resnet18", "--print-config"]) == 0
    shown = capsys.readouterr()
    assert "data folder nowhere is missing" in shown.err and yaml.safe_load(shown.out)["data"] == "nowhere"


SWIN, RESNET = "swin_tiny_patch4_window7_224", "resnet50"


@pytest.mark.parametrize(
    ("twice", "once"),
    [
        (["--model", RESNET, "--model", SWIN], ["--model", SWIN]),
        ([f"--model={SWIN}", f"--model={RESNET}"], ["--model", RESNET]),
        (["--recipe", "light", "--recipe=swin_base"], ["--recipe", "swin_base"]),
        (["--regime", "fixres", "--regime", "finetune"], ["--regime=finetune"]),
        (["--config", "a.yaml", "--config=b.yaml"], ["--config", "b.yaml"]),
        (["--config", "b.yaml", "--model", RESNET, "--model", "convnext_tiny"], ["--model", "convnext_tiny"]),
        (
            ["--batch_size", "8", "--batch-size", "16", "--model_kwargs", "a=1"],
            ["--batch-size=16", "--model-kwargs=a=1"],
        ),
    ],
)
def test_of_a_repeated_flag_the_last_counts_everywhere(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    twice: list[str],
    once: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(f"model: {RESNET}\nrecipe: light\n")
    Path("b.yaml").write_text(f"model: {SWIN}\n")
    shown = []
    for words in (twice, once):
        assert main(["train", *words, "--print-config"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]


def test_fixres_that_was_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "--model", "resnet18", "--fixres", "--no-fixres", "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["regime"] == "finetune"


def test_model_kwargs_are_written_as_in_timm(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--model-kwargs", "layers=[1,1,1]", "act_layer=silu", "--print-config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model_kwargs"] == {
        "layers": [1, 1, 1],
        "act_layer": "silu",
    }


def test_eval_tells_classes_and_confusions_and_shows_them(
    uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "--run", str(uninterrupted), "--workers", "0", "--device", "cpu", "--per-class", "--confusion"]
    # Without low frequencies something is confused.
    words += ["--high-pass", "12"]
    assert main([*words, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["confusions"]
    right = sum(row["right"] for row in told["per_class"])
    assert sum(row["images"] for row in told["per_class"]) == told["images"]
    assert 100 * right / told["images"] == pytest.approx(told["top1"])
    assert sum(row["images"] for row in told["confusions"]) == told["images"] - right
    names = {row["class"] for row in told["per_class"]}
    assert all({row["class"], row["guess"]} <= names and row["class"] != row["guess"] for row in told["confusions"])
    report, table = tmp_path / "report.html", tmp_path / "classes.csv"
    assert main([*words, "--report-file", str(report), "--per-class-file", str(table)]) == 0
    shown = capsys.readouterr().out
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(row["class"], int(row["right"])) for row in rows] == [
        (row["class"], row["right"]) for row in told["per_class"]
    ]
    assert "per class at" in shown and "confusions at" in shown and str(report) in shown
    html = report.read_text(encoding="utf-8")
    assert "data:image/png;base64," in html and not re.search(r'(?:src|href)="(?!data:)', html)
    assert html.count("taken for <strong>") == min(12, len(told["confusions"]))
    assert main([*words, "--sizes", "32", "64", "--report-file", str(report)]) == 2
    assert "--report-file is of one evaluation" in capsys.readouterr().err
    assert main([*words, "--report-file", str(tmp_path / "nowhere/report.html")]) == 2
    refused = capsys.readouterr().err
    assert f"there is no folder {tmp_path / 'nowhere'}: make it, or choose another --report-file" in refused
    # What is written over would be lost.
    (tmp_path / "config.yaml").write_text("model: test_vit\n")
    assert main([*words, "--report-file", str(tmp_path / "config.yaml")]) == 2
    assert main([*words, "--report-file", str(tmp_path / "report.html")]) == 2
    refused += capsys.readouterr().err
    assert "let --report-file end in .html" in refused and "report.html is the report of the run's training" in refused
    assert "evaluating" not in refused


def test_train_then_eval_and_resume(capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path) -> None:
    words = [
        "--data",
        str(image_folder),
        "--model",
        "test_resnet",
        "--epochs",
        "2",
        "--output",
        str(tmp_path / "run"),
        *SMALL,
    ]
    assert main(["train", *words]) == 0
    told = capsys.readouterr().out
    assert "top-1" in told
    begun = [told.index(what) for what in ("scanning the data", "making the model", "starting the loader", "images/s")]
    assert begun == sorted(begun)
    assert "holds another run" in refusal(capsys, "train", *words)
    assert main(["train", *words, "--resume", "auto"]) == 0
    onward = [*words[: words.index("--output")], "--resume"]
    assert main(["train", *onward, str(tmp_path / "run"), "--output", str(tmp_path / "onward"), *SMALL]) == 0
    assert f"going on from {tmp_path / 'run/checkpoints'}" in capsys.readouterr().out
    assert "holds no checkpoint" in refusal(
        capsys, "train", *onward, str(image_folder), "--output", str(tmp_path / "other"), *SMALL
    )
    assert main(["eval", "--run", str(tmp_path / "run"), "--workers", "0", "--json"]) == 0
    from_run = json.loads(capsys.readouterr().out)
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert from_run["images"] == 16
    assert from_run["top1"] == last["top1"]
    weights = str(tmp_path / "run/model.safetensors")
    assert (
        main(
            [
                "eval",
                "--model",
                "test_resnet",
                "--weights",
                weights,
                "--data",
                str(image_folder),
                "--final-size",
                "64",
                "--workers",
                "0",
                "--json",
            ]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(from_run["loss"], abs=0.05)
    assert "another model" in refusal(
        capsys,
        "eval",
        "--model",
        "test_vit",
        "--weights",
        weights,
        "--data",
        str(image_folder),
        "--final-size",
        "64",
    )


def test_usage_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "train" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("upchirp 0.")


def test_a_training_knows_which_settings_flags_and_file_named(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("model: test_vit\nseed: 3\n", encoding="utf-8")
    words = ["--config", str(tmp_path / "my.yaml"), "--batch-size=64", "--no-amp", "--opt-betas", "0.9", "0.95"]

    def build(values: Mapping[str, object], source: str) -> TrainCommand:
        return TrainCommand(training=TrainConfig.from_flat(values))

    command = parse_training(words, prog="upchirp train", description="", build=build)
    assert command.training.given == {"model", "seed", "batch_size", "amp", "opt_betas"}
    assert (command.training.batch_size, command.training.optimization.amp) == (64, False)


def test_the_plan_of_training_as_usual_claims_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Tables 7 and 8: 300 epochs as usual are what others are compared with, and EfficientTrain's 300 save 1.53x."""
    told = {}
    for words in ("constant", "efficienttrain", "constant --recipe light --warmup-passes 2"):
        assert main(["plan", "--model", "resnet50", "--json", "--curriculum", *words.split()]) == 0
        told[words] = json.loads(capsys.readouterr().out)
    assert told["constant"]["speedup"] == pytest.approx(1.0, abs=1e-4)
    assert main(["plan", "--model", "resnet50", "--curriculum", "constant"]) == 0
    assert "the computation of 300.0 epochs as usual" in " ".join(capsys.readouterr().out.split())
    assert told["efficienttrain"]["speedup"] == pytest.approx(1.53, abs=0.01)
    light = told["constant --recipe light --warmup-passes 2"]
    assert light["schedule"]["warmup"] == pytest.approx(2 / light["equivalent_epochs"], rel=0.01)

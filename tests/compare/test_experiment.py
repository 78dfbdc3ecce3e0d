import json
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml

from upchirp.cli import main
from upchirp.compare import CompareConfig
from upchirp.compare.jobs import estimate

SHARED: dict[str, Any] = {
    "model": "test_resnet", "final_size": 64, "recipe": "light", "epochs": 2, "batch_size": 16, "workers": 0,
    "device": "cpu", "evaluations": 1, "report": False, "seeds": [0],
}  # fmt: skip
HALVES = {"axis": "samples", "phases": [{"end": 0.5, "bandwidth": 32}, {"end": 1.0, "bandwidth": 64}]}
USUAL = {"name": "usual", "curriculum": "constant"}
OURS = {"name": "ours", "curriculum": "efficienttrain_plus_plus"}


def write(folder: Path, *variants: Any, **changes: Any) -> str:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({**SHARED, "variants": list(variants), **changes}))
    return str(path)


def planned(data: Path, *variants: Any, **changes: Any) -> dict[str, Any]:
    """The jobs of an experiment by name."""
    values = {**SHARED, "data": str(data), "variants": list(variants), **changes}
    return {job.entry.name: job for job in estimate(CompareConfig.from_flat(values))}


def test_an_experiment_end_to_end(capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path) -> None:
    replay = {"name": "replay", "curriculum": HALVES, "replay": 1, "budgets": [1.0]}
    fixres = {"name": "replay + fixres", "after": "replay", "regime": "fixres", "final_size": 96, "epochs": 1}
    shallow: dict[str, Any] = {"model": "test_vit", "model_kwargs": {"depth": 1}}
    experiment = write(tmp_path, USUAL, replay, fixres, budgets=[0.5, 1.0], **shallow)
    output = tmp_path / "out"
    words = ["compare", experiment, "--data", str(image_folder), "--output", str(output)]
    assert main(words) == 0
    assert "run 4 of 4: replay + fixres-1 seed 0" in capsys.readouterr().out
    summary = json.loads((output / "summary.json").read_text())
    runs = {(run["name"], run["budget"]): run for run in summary["runs"]}
    # The baseline at its largest budget comes first: the others are compared with it.
    assert list(runs) == [("usual", 1.0), ("usual", 0.5), ("replay", 1.0), ("replay + fixres", 1.0)]
    assert all(len(run["accuracy"]) == len(run["train_seconds"]) == 1 for run in summary["runs"])
    settings = yaml.safe_load((output / "replay-1/seed0/config.yaml").read_text())
    assert (settings["replay"], settings["curriculum"]) == (1, {"name": "replay", **HALVES})
    # What fine-tuning costs comes on top of what it starts from, and its regime decides how it trains.
    on, tuned = runs["replay", 1.0], runs["replay + fixres", 1.0]
    assert tuned["seconds_before"] == on["train_seconds"] and tuned["train_seconds"][0] > on["train_seconds"][0]
    # 64 images at 96 px: 2.25 of the pixels of each of the baseline's two passes.
    assert tuned["relative_compute"] - on["relative_compute"] == pytest.approx(2.25 / 2, rel=0.05)
    settings = yaml.safe_load((output / "replay + fixres-1/seed0/config.yaml").read_text())
    assert (settings["tune"], settings["final_size"], settings["curriculum"]) == ("head_and_norms", 96, "constant")
    assert settings["weights"] == str(output / "replay-1/seed0/model.safetensors")
    readings = {(each["name"], each["budget"]) for each in summary["equal_accuracy"]["replay"]}
    assert readings >= {("usual", 0.5), ("usual", 1.0)}
    # All of the baseline's images are prepared, and a half of those at 32 px, which are a quarter as large.
    (whole,), (early, late) = runs["usual", 1.0]["loaded"][0], on["loaded"][0]
    for stage, side in ((whole, 64), (early, 32), (late, 64)):
        assert stage["megabytes_per_second"] / stage["prepared_per_second"] == pytest.approx(3 * side**2 / 1e6)
    log = [json.loads(line) for line in (output / "replay-1/seed0/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in log if line["kind"] == "train"]
    shares = [line["prepared_per_second"] / line["images_per_second"] for line in steps]
    assert shares == pytest.approx([0.5, 1.0])
    report = (output / "report.html").read_text()
    assert all(name in report for name in ("replay + fixres", "accuracy-against-compute", "regime: fixres"))
    # It goes on by its folder alone: nothing is trained again, and one more variant alone is.
    assert main(["compare", "--resume", "auto", "--output", str(output)]) == 0
    assert json.loads((output / "summary.json").read_text())["runs"] == summary["runs"]
    more = write(tmp_path, USUAL, replay, fixres, {**USUAL, "name": "sgd", "opt": "sgd"}, budgets=[0.5], **shallow)
    capsys.readouterr()
    assert main(["compare", more, "--resume", "auto", "--output", str(output), "--dry-run"]) == 0
    estimate = capsys.readouterr().out
    assert "sgd-0.5 seed 0" in estimate and "3 of them are finished; the others take " in estimate


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_two_runs_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    image_folder: Path,
    tmp_path: Path,
    signum: signal.Signals,
) -> None:
    """Not in a training, which collects them; a handler of its own shows that it is back afterwards."""

    def stopped(number: int, frame: FrameType | None) -> None:
        raise AssertionError("the signal was not taken")

    before = signal.signal(signum, stopped)
    try:
        monkeypatch.setattr("upchirp.compare.comparison.train", lambda *_, **__: signal.raise_signal(signum))
        words = ["compare", write(tmp_path, USUAL, OURS), "--data", str(image_folder), "--output", str(tmp_path / "o")]
        assert main(words) == 128 + signum
        assert signal.getsignal(signum) is stopped
    finally:
        signal.signal(signum, before)
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"upchirp: {signum.name}: stopped in {tmp_path / 'o'}; go on with: upchirp compare --resume auto --output "
        f"{tmp_path / 'o'}"
    )


@pytest.mark.parametrize(
    ("variants", "changes", "message"),
    [
        ([USUAL, {**OURS, "curiculum": "linear"}], {}, "variant 'ours': experiment: unknown key 'curiculum': did you"),
        ([USUAL, OURS], {"epoch": 3}, "experiment.yaml: unknown key 'epoch': did you mean epochs"),
        ([USUAL, {**OURS, "name": "usual"}], {}, "two variants have the name 'usual'"),
        ([USUAL, {"curriculum": "linear"}], {}, "each of variants has a `name`"),
        ([USUAL, "ours"], {}, "each of variants has a `name`"),
        ([USUAL, {**OURS, "name": "a/b"}], {}, "variant 'a/b': a name begins with"),
        ([USUAL, {**OURS, "name": True}], {}, "the name of a variant is True, as YAML reads numbers, yes, no"),
        ([USUAL, {**OURS, "name": 2}], {}, "the name of a variant is 2, as YAML reads numbers, yes, no"),
        ([USUAL, {**OURS, "model": "resnet5"}], {}, "variant 'ours': timm has no model 'resnet5'"),
        ([USUAL, {**OURS, "model": "test_vit", "final_size": 60}], {}, "variant 'ours': "),
        ([USUAL, {**OURS, "curriculum": {"phases": [{"end": 1.0, "bandwidth": 63}]}}], {}, "variant 'ours': "),
        ([USUAL, {**OURS, "opt": "nope"}], {}, "variant 'ours': --opt is 'nope'"),
        ([USUAL, {**OURS, "seed": 3}], {}, "variant 'ours' sets seed, which it cannot: seeds are shared"),
        ([USUAL, {**OURS, "budgets": [0.001]}], {}, "variant 'ours': the budget is too small"),
        ([USUAL, {**OURS, "budgets": [0]}], {}, "variant 'ours': budgets [0.0]: give shares"),
        ([USUAL, {**OURS, "time_budget": "3m"}], {}, "variant 'ours' sets time_budget"),
        ([USUAL, {**OURS, "after": "theirs"}], {}, "variant 'ours' is trained on 'theirs': give the name of a"),
        ([USUAL, {**OURS, "epochs": 3}], {"equal_cost": True}, "variant 'ours' sets epochs, but at equal cost"),
        ([USUAL, OURS], {"curricula": ["constant", "linear"]}, "the experiment gives variants: leave out --curricula"),
        ([USUAL, OURS], {"only": ["ous"]}, "no variant has the name 'ous': choose from usual, ours"),
        ([], {"only": ["ours"]}, "no variant has the name 'ours': only an experiment's file has variants"),
    ],
)  # fmt: skip
def test_bad_experiments_are_refused_in_one_line_before_anything_trains(
    capsys: pytest.CaptureFixture[str], image_folder: Path, tmp_path: Path, variants: Any, changes: Any, message: str
) -> None:
    experiment = write(tmp_path, *variants, **changes)
    output = tmp_path / "out"
    assert main(["compare", experiment, "--data", str(image_folder), "--output", str(output)]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("upchirp: error: ") and told.count("\n") == 1
    assert not output.exists()


def test_of_an_experiment_some_variants_are_compared_with_the_baseline_alone(image_folder: Path) -> None:
    fixres = {"name": "tuned", "after": "halves", "regime": "fixres", "epochs": 1}
    listed = [USUAL, OURS, {"name": "halves", "curriculum": HALVES}, fixres]
    every = planned(image_folder, *listed)
    # What a variant is trained on is trained, too.
    expected = {(): list(every), ("ours",): ["usual-1", "ours-1"], ("tuned",): ["usual-1", "halves-1", "tuned-1"]}
    for names, runs in expected.items():
        some = planned(image_folder, *listed, only=names)
        assert list(some) == runs
        assert all(some[name].config == every[name].config for name in some)


def test_equal_cost_shares_out_the_baselines_compute(image_folder: Path) -> None:
    listed = [USUAL, {"name": "halves", "curriculum": HALVES}, OURS, {**USUAL, "name": "larger", "model": "test_vit"}]
    usual, halves, ours, larger = planned(image_folder, *listed, epochs=50, equal_cost=True).values()
    assert usual.config.epochs == 50
    # Half of its passes at a quarter of the pixels cost 0.625 of them all.
    assert halves.config.epochs == pytest.approx(50 / 0.625, rel=1e-3)
    assert ours.config.epochs == pytest.approx(50, rel=1e-3)
    assert [job.compute for job in (halves, ours, larger)] == pytest.approx([usual.compute] * 3, rel=0.02)
    unequal = planned(image_folder, *listed[:2], epochs=50)
    assert unequal["halves-1"].plan.equivalent_epochs == pytest.approx(50 * 0.625, rel=0.01)


def test_variants_that_differ_in_their_curriculum_train_by_the_same_otherwise(image_folder: Path) -> None:
    listed = [USUAL, OURS, {**OURS, "name": "vit", "model": "test_vit"}]
    changes = {"batch_size": None, "recipe": "auto", "early_batch": "auto"}
    values = {**SHARED, "data": str(image_folder), "variants": listed, **changes}
    del values["batch_size"]
    usual, ours, vit = (job.config for job in estimate(CompareConfig.from_flat(values)))
    assert usual.batch_size == ours.batch_size
    assert usual.optimization == ours.optimization != vit.optimization
    # Training as usual has no early stages.
    assert (usual.early_batch, ours.early_batch) == (None, "auto")


def test_flags_and_files_give_the_same_experiment(image_folder: Path) -> None:
    flags = CompareConfig.from_flat({**SHARED, "data": str(image_folder), "curricula": ["constant", "linear"]})
    usual = {"name": "constant", "curriculum": "constant"}
    others = {"name": "linear", "curriculum": "linear", "budgets": [0.5, 0.6667, 1.0]}
    file = planned(image_folder, usual, others)
    assert {job.entry.name: job.config for job in estimate(flags)} == {name: job.config for name, job in file.items()}


def test_a_curriculum_file_lies_beside_the_experiment(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "halves.yaml").write_text(yaml.safe_dump(HALVES))
    values = {**SHARED, "data": str(image_folder), "variants": [USUAL, {"name": "a", "curriculum": "halves.yaml"}]}
    config = CompareConfig.from_flat(values, source=str(tmp_path / "experiment.yaml"))
    assert estimate(config)[1].plan.bandwidths == (32, 64)

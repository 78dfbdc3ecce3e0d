"""Images with several labels: their loss and figures, and what becomes of a run on them."""

import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve
from tests.runs import differing, interrupted, logged, settings, write_tags
from timm.loss import BinaryCrossEntropy
from torch import nn

from upchirp import InputError, TrainConfig, train
from upchirp.cli import main
from upchirp.compare.outcomes import Entry, outcome_of
from upchirp.compare.settling import Sources
from upchirp.compare.summary import summarise
from upchirp.data import GeneratedSource, LabelSets, LooseSource, Targets, open_evaluation
from upchirp.machine import hardware
from upchirp.reports.compare_html import write_report
from upchirp.search import SearchConfig, search
from upchirp.training import (
    Classification,
    EvalData,
    EvalLoading,
    LabelScores,
    MultiLabel,
    Origin,
    Ranked,
    estimate,
    evaluate_weights,
    predict,
    read_thresholds,
    validate,
)
from upchirp.training.assets.eval_data import other_kind
from upchirp.training.checkpoints.description import read_description
from upchirp.training.checkpoints.weights import read_weights
from upchirp.training.engine.label_scores import average_precision, precision_recall
from upchirp.training.methods.chosen import for_images
from upchirp.training.recipes.groups import Start

AT_ONCE = EvalLoading(workers=0)
TAGS = ("cat", "dog", "wet")


@pytest.fixture(scope="module")
def table(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tags(image_folder, tmp_path_factory.mktemp("tagged") / "table.csv")


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A finished run."""
    output = tmp_path_factory.mktemp("multi") / "run"
    made = TrainConfig.from_flat(settings(data=str(table), output=str(output), lr=1e-3, epochs=1, report=True))
    result = train(made)
    assert (result.figure, result.output) == ("mAP", output) and 0 < result.top1 <= 100
    return made


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.booleans())
def test_average_precision_is_scikit_learns(seed: int, images: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-2, 3, images).astype(np.float32) if ties else rng.standard_normal(images, np.float32)
    truth = rng.random(images) < 0.4
    expected = average_precision_score(truth, scores) if truth.any() else math.nan
    assert average_precision(truth, scores) == pytest.approx(expected, nan_ok=True)
    if not truth.any():
        return
    curve = precision_recall(truth, scores)
    precisions, recalls, thresholds = precision_recall_curve(truth, scores)
    # Theirs rise, and end with a point of no threshold.
    np.testing.assert_allclose(curve.precisions, precisions[-2::-1])
    np.testing.assert_allclose(curve.recalls, recalls[-2::-1])
    np.testing.assert_array_equal(curve.thresholds, thresholds[::-1])
    taken = 1 / (1 + np.exp(-scores.astype(np.float64))) >= curve.best.threshold
    assert curve.best.f1 == pytest.approx(f1_score(truth, taken))
    sums = np.maximum(precisions + recalls, 1e-9)
    assert curve.best.f1 == pytest.approx((2 * precisions * recalls / sums).max())
    assert curve.best.precision == pytest.approx(truth[taken].mean())


def test_figures_are_scikit_learns_and_say_nothing_of_absent_classes() -> None:
    rng = np.random.default_rng(0)
    truth, scores = rng.random((50, 4)) < 0.3, rng.standard_normal((50, 4))
    truth[:, 2] = False
    made = LabelScores(indices=np.arange(50), truth=truth, scores=scores)
    present = [0, 1, 3]
    assert made.figures["mAP"] == pytest.approx(100 * average_precision_score(truth[:, present], scores[:, present]))
    assert made.figures["micro_f1"] == pytest.approx(100 * f1_score(truth, scores > 0, average="micro"))
    by_class = made.by_class("abcd")
    nothing = dict.fromkeys(("average_precision", "best_f1", "threshold", "precision", "recall"))
    assert by_class[2] == {"class": "c", "images": 0, **nothing}
    assert by_class[1]["images"] == truth[:, 1].sum()
    # Probabilities in float32, as predictions have them, reach the threshold where those that it is of do.
    for label in present:
        taken = torch.from_numpy(scores[:, label]).float().sigmoid().numpy() >= by_class[label]["threshold"]
        assert 100 * f1_score(truth[:, label], taken) == pytest.approx(by_class[label]["best_f1"])


def test_outputs_that_are_no_numbers_rank_last() -> None:
    assert average_precision(np.array([True, False]), np.array([np.nan, 0.0])) == 0.5
    assert precision_recall(np.array([True, False]), np.array([np.nan, 0.0])).best.threshold == 0


def test_the_loss_is_timms() -> None:
    task = MultiLabel(LabelSets.of([(0, 1), (), (2,)], 3))
    assert isinstance(task, Ranked) and not isinstance(Classification(), Ranked)
    logits, labels = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 1])
    rows = torch.tensor([[0.0, 0, 1], [1, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(task.loss(logits, Targets.of(labels)).mean(), BinaryCrossEntropy()(logits, rows))
    # Mixed images are asked for shares of both; one class in each set is one label.
    mixed = Targets(labels, labels.flip(0), torch.tensor([0.2, 0.5, 0.9]), smoothing=0.1)
    single = MultiLabel(LabelSets.of([(0,), (1,), (2,)], 3))
    torch.testing.assert_close(single.loss(logits, mixed), Classification("bce").loss(logits, mixed))


def test_a_run_tells_map_and_goes_on_exactly(run: TrainConfig, tmp_path: Path) -> None:
    assert run.output is not None
    evaluations = logged(run.output, "evaluation")
    assert all(0 <= line["mAP"] <= 100 and 0 <= line["micro_f1"] <= 100 and line["loss"] > 0 for line in evaluations)
    assert not (run.output / "predictions.npz").exists()
    page = (run.output / "report.html").read_text()
    assert "average precision, %" in page and "% mAP" in page and "wet" in page and "top-1" not in page
    other = interrupted(replace(run, output=tmp_path / "other"), 2)
    train(other)
    assert not differing(run.output, other.output)


def test_selection_and_fine_tuning_of_its_weights(run: TrainConfig, table: Path, tmp_path: Path) -> None:
    assert run.output is not None
    own = settings(data=str(table), output=str(tmp_path / "tuned"), epochs=1, select="infobatch", mixup=0.0)
    again = TrainConfig.from_flat({**own, "regime": "finetune", "weights": str(run.output / "model.safetensors")})
    assert train(replace(again, keep_head=True)).top1 > 0


def test_what_is_made_of_its_weights(run: TrainConfig, table: Path, tmp_path: Path) -> None:
    assert run.output is not None
    (measured,) = evaluate_weights(Origin(run=run.output), loading=AT_ONCE, report_file=tmp_path / "eval.html")
    last = [line for line in logged(run.output, "evaluation") if line["weights"] == "ema"][-1]
    assert measured.evaluation.figures["mAP"] == pytest.approx(last["mAP"])
    rows = measured.by_class()
    assert [row["class"] for row in rows] == list(TAGS) and not measured.confusions()
    assert np.mean([row["average_precision"] for row in rows]) == pytest.approx(last["mAP"])
    page = (tmp_path / "eval.html").read_text()
    assert "average precision, %" in page and f"<td>{rows[1]['threshold']:.3f}</td>" in page
    assert page.count("data:image/svg+xml") == 2 and "of lowest average precision" not in page
    scores = measured.evaluation.scores
    assert scores is not None
    for label, row in enumerate(rows):
        taken = torch.sigmoid(torch.from_numpy(scores.scores[:, label]).double()).numpy() >= row["threshold"]
        assert 100 * f1_score(scores.truth[:, label], taken) == pytest.approx(row["best_f1"])
    # Columns in another order, and a class that no image has.
    turned = tmp_path / "turned.csv"
    names = ["wet", "dog", "cat"]
    lines = [line.split(",") for line in table.read_text().splitlines()[1:]]
    cells = [[path, *(str(int(name in labels.split(";") and name != "dog")) for name in names)]
             for path, labels, split in lines if split == "val"]  # fmt: skip
    turned.write_text("\n".join(",".join(cell) for cell in [["path", *names], *cells]))
    (matched,) = evaluate_weights(
        Origin(weights=run.output / "model_ema.safetensors"), EvalData(data=str(turned)), loading=AT_ONCE
    )
    found = {row["class"]: row["average_precision"] for row in matched.by_class()}
    # In float32, while the run's evaluations are in bfloat16.
    assert found["wet"] == pytest.approx(rows[2]["average_precision"], abs=2) and found["dog"] is None
    assert matched.evaluation.figures["mAP"] == pytest.approx((found["wet"] + found["cat"]) / 2)


def test_evaluations_say_where_weights_and_images_are_of_two_kinds(run: TrainConfig, table: Path) -> None:
    assert run.output is not None
    weights, images = read_weights(run.output / "model.safetensors"), open_evaluation(table, note=lambda line: None)
    single = replace(weights, description=replace(weights.description, multi_label=False))
    generated = GeneratedSource("val", num_images=4, num_classes=3)
    assert "have one each" in other_kind(generated, weights)[0] and "have several" in other_kind(images, single)[0]
    assert not other_kind(images, weights) and not other_kind(generated, single)


def test_predictions_are_those_above_a_threshold(run: TrainConfig, image_folder: Path, capsys: Any) -> None:
    assert run.output is not None
    images = [str(path) for path in sorted((image_folder / "val" / "cat").iterdir())[:3]]

    def asked(**options: Any) -> list[list[tuple[str, float]]]:
        found = list(predict(LooseSource(images), Origin(run=run.output), loading=AT_ONCE, **options))
        return [[(guess.name, guess.probability) for guess in each.guesses] for each in found]

    every = asked(threshold=0.0)
    assert all({name for name, _ in guesses} == set(TAGS) for guesses in every)
    assert all(abs(sum(value for _, value in guesses) - 1) > 1e-3 for guesses in every)
    assert asked() == [[guess for guess in guesses if guess[1] >= 0.5] for guesses in every]
    assert [guesses[:1] for guesses in every] == asked(threshold=0.0, top=1)
    assert asked(threshold=1.0) == [[], [], []]
    with pytest.raises(InputError, match="`threshold` is 2"):
        asked(threshold=2.0)
    each = dict(zip(TAGS, (0.0, 1.0, 0.5), strict=True))
    assert asked(threshold=each) == [[guess for guess in guesses if guess[1] >= each[guess[0]]] for guesses in every]
    with pytest.raises(InputError, match=r"`threshold` has no value for 2 of the 3 classes \(cat, wet\)"):
        asked(threshold={"dog": 0.5, "horse": 0.5})
    assert main(["predict", "--run", str(run.output), "--workers", "0", "--threshold", "1", "--csv", *images[:1]]) == 0
    assert list(csv.reader(io.StringIO(capsys.readouterr().out)))[1] == [images[0], "", "", "", "", ""]


def test_thresholds_go_from_an_evaluation_to_predictions(
    run: TrainConfig, table: Path, tmp_path: Path, capsys: Any
) -> None:
    """Images that predictions give a class to are those that the class's precision and recall were measured by."""
    assert run.output is not None
    weights = ["--weights", str(run.output / "model_ema.safetensors"), "--workers", "0", "--device", "cpu"]
    file = tmp_path / "classes.csv"
    assert main(["eval", *weights, "--data", str(table), "--per-class-file", str(file)]) == 0
    assert f"classes: {file}" in capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [row["class"] for row in rows] == list(TAGS) and read_thresholds(file).keys() == set(TAGS)
    missing = file.with_name("none.csv")
    with pytest.raises(InputError, match=f"^cannot read {missing}: there is no such file$"):
        read_thresholds(missing)
    told = [line.split(",") for line in table.read_text().splitlines()[1:]]
    shown = {path: set(labels.split(";")) for path, labels, split in told if split == "val"}
    # In other batches than they were evaluated in.
    words = ["predict", *weights, "--batch-size", "3", "--json", "--threshold"]
    assert main([*words, str(file), *shown]) == 0
    predicted = {
        entry["image"]: {guess["class"] for guess in entry["predictions"]}
        for entry in json.loads(capsys.readouterr().out)
    }
    for row in rows:
        name, taken = row["class"], [path for path, names in predicted.items() if row["class"] in names]
        right = sum(name in shown[path] for path in taken)
        assert int(row["images"]) == sum(name in names for names in shown.values())
        assert float(row["precision"]) == pytest.approx(100 * right / len(taken))
        assert float(row["recall"]) == pytest.approx(100 * right / int(row["images"]))
        assert float(row["best_f1"]) == pytest.approx(200 * right / (len(taken) + int(row["images"])))
    # Written over is only what was written so.
    assert main(["eval", *weights, "--data", str(table), "--per-class-file", str(table)]) == 2
    assert main(["eval", *weights, "--per-class-file", str(tmp_path / "classes.html")]) == 2
    refused = capsys.readouterr().err
    assert f"{table} is there and is no table of an evaluation" in refused
    assert "let --per-class-file end in .csv" in refused
    for text, message in (
        ("class,threshold\ncat,0.5\ndog,\nwet,0.1\n", "--threshold has no value for 1 of the 3 classes (dog)"),
        ("class,threshold\ncat,much\n", "the threshold of cat is much: it is a probability"),
        ("class,threshold\ncat,0.5\ncat,0.6\n", "has two thresholds for cat"),
        ("class,images,right,accuracy\ncat,1,1,100\n", "has no columns class and threshold"),
        (None, "cannot read"),
    ):
        file.unlink() if text is None else file.write_text(text)
        assert main([*words, str(file), *shown]) == 2
        assert message in capsys.readouterr().err


def test_exported_weights_say_what_they_tell(run: TrainConfig, tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    assert main(["export", "--run", str(run.output), "--format", "hf", "--output", str(folder)]) == 0
    config = json.loads((folder / "config.json").read_text())
    assert (config["problem_type"], config["label_names"]) == ("multi_label_classification", list(TAGS))
    card = (folder / "README.md").read_text()
    assert "| mAP on the validation images |" in card and "An image may have several classes" in card
    # Tensors alone, as another library would write them: the configuration beside them says it.
    save_file(load_file(folder / "model.safetensors"), folder / "plain.safetensors")
    described = read_description(folder / "plain.safetensors")
    assert described.multi_label and described.classes == TAGS


def test_the_command_prints_it(run: TrainConfig, capsys: Any) -> None:
    assert main(["eval", "--run", str(run.output), "--workers", "0", "--per-class", "--confusion"]) == 0
    out, err = capsys.readouterr()
    assert "mAP" in out and "micro F1" in out and "average" in out and "top-1" not in out
    assert "best F1" in out and "recall" in out and re.search(r"dog .* %.* % │ +0\.\d{3} │", out)
    assert "--confusion has nothing to print" in err


def test_plans_and_loops_of_ones_own(table: Path) -> None:
    planned = estimate(TrainConfig.from_flat(settings(data=str(table), output=None)))
    assert planned["classes"] == 3 and "several labels" in planned["chosen"][0]
    source = open_evaluation(table, note=lambda line: None)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    assert 0 < validate(model, source, 32, workers=0).figures["mAP"] <= 100


def test_what_is_for_one_label_is_refused(table: Path, tmp_path: Path) -> None:
    source = open_evaluation(table, note=lambda line: None)
    config = TrainConfig.from_flat(settings(data=str(table), output=str(tmp_path / "run")))
    for changes, message in (
        ({"loss": "cross_entropy"}, "`loss='cross_entropy'` is for one label"),
        ({"kd_model": Path("teacher.safetensors")}, "`kd_model` teaches shares of one label"),
    ):
        with pytest.raises(InputError, match=message):
            for_images(Classification(), replace(config, **changes), [source])
    with pytest.raises(InputError, match="is for one label"):
        train(replace(config, loss="cross_entropy"))
    assert not (tmp_path / "run").exists()
    assert isinstance(for_images(Classification(), replace(config, loss="bce"), [source]), MultiLabel)


def test_it_is_searched_over(table: Path, tmp_path: Path) -> None:
    own = settings(data=str(table), output=str(tmp_path / "search"), model_ema=False, batch_size=16, epochs=1)
    training = TrainConfig.from_flat(own)
    found = SearchConfig(training=training, stages=2, candidates=(32, 64), search_val=0.25, tuning_epochs=0.5)
    search(found)
    lines = [json.loads(line) for line in (tmp_path / "search" / "journal.jsonl").read_text().splitlines()]
    assert all(0 < line["accuracy"] <= 100 for line in lines if line["kind"] == "trial")


def test_comparisons_and_their_margins_are_of_map(run: TrainConfig, tmp_path: Path) -> None:
    assert run.output is not None
    outcome = outcome_of(train(replace(run, resume="auto")))
    assert outcome.scores is not None and outcome.predictions is None
    made = summarise({Entry("usual", 1.0): [outcome], Entry("same", 1.0): [outcome]}, seeds=[0], root=run.output.parent)
    usual, same = made["runs"]
    assert made["figure"] == "mAP" and "mAP" in usual["history"][0][0]
    # A bootstrap of what was measured lies around it; that of a difference is paired.
    draws = outcome.scores.resampled(50)
    assert draws.min() <= outcome.scores.figures["mAP"] <= draws.max()
    assert usual["mean"]["margin"] == pytest.approx(1.96 * outcome.scores.resampled(200).std(ddof=1), rel=1e-3)
    assert (same["difference"]["points"], same["difference"]["of_images"], same["difference"]["paired"]) == (0, 0, True)
    asked = {"model": "test_vit", "data": "table.csv", "dataset_size": 64, "final_size": 64, "batch_size": 32}
    also = {"model_kwargs": {}, "recipe": "light", "epochs": 1, "equal_cost": False, "seeds": [0], "variants": []}
    facts = {"command": "", "hardware": hardware(), "versions": {}}
    write_report({**made, **asked, **also, **facts}, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert '<th class="number">mAP</th>' in page and "top-1" not in page


def test_labels_of_two_kinds_are_not_compared(table: Path, image_folder: Path) -> None:
    sources = Sources()
    with pytest.warns(UserWarning, match="several labels"):
        sources.of(Start(data=str(table)))
    with pytest.raises(InputError, match="top-1 and mAP cannot be compared"):
        sources.of(Start(data=str(image_folder)))


def test_a_model_of_ones_own_has_an_output_for_each_class() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    with pytest.raises(InputError, match="has 4 outputs for 3 classes: make it with num_classes=3"):
        MultiLabel(LabelSets.of([(0,), (1, 2)], 3)).check(model, 8, 0)

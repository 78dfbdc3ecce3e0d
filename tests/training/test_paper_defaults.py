"""What a run is like when nothing is asked for but its curriculum: the paper's warm-up and budgets."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from upchirp import TrainConfig, plan, preset
from upchirp.compare import CompareConfig
from upchirp.compare.jobs import jobs_of
from upchirp.compare.settling import Sources
from upchirp.curriculum import LearningRate, Plan
from upchirp.training import REGIMES, estimate, make_plan
from upchirp.training.recipes.defaults import choose_recipe

IMAGENET = 1_281_167


class OfImageNetsSize:
    classes = ("cat", "dog")

    def __len__(self) -> int:
        return 600_000

    def load(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (64, 64)), 0


def planned(model: str, curriculum: str = "", images: int = IMAGENET, **values: Any) -> Plan:
    """The plan of ImageNet's size for a model of Table 7; the cost of pixels needs no model."""
    named = {"curriculum": curriculum} if curriculum else {}
    config = choose_recipe(TrainConfig.from_flat({"model": model, **named, **values}), images).config
    return make_plan(config, preset(config.curriculum, 224), images, model=None)  # type: ignore[arg-type]


def warmup_passes(run: Plan) -> float:
    """Passes over the data until the rate reaches its ceiling, counted step by step."""
    rising = (step for step in run.steps() if step.progress >= run.schedule.warmup)
    return next(rising).first_sample / run.dataset_size


@pytest.mark.parametrize(
    ("model", "curriculum", "epochs", "share"),
    [
        # Table 24: 20 epochs; of 300 for the baseline and for EfficientTrain.
        ("resnet50", "constant", 300, 20 / 300),
        ("deit_small_patch16_224", "constant", 300, 20 / 300),
        ("deit_small_patch16_224", "efficienttrain", 300, 20 / 300),
        # At 96 px and, for ConvNeXt, 160 px (A.1) of 200 equivalent epochs; the same passes for DeiT.
        ("swin_tiny_patch4_window7_224", "", 200, 20 * (96 / 224) ** 2 / 200),
        ("deit_small_patch16_224", "", 200, 20 * (96 / 224) ** 2 / 200),
        ("convnext_tiny", "", 200, 20 * (160 / 224) ** 2 / 200),
        # Table 9 and Figure 7: 100 equivalent epochs have the same 20 passes.
        ("swin_tiny_patch4_window7_224", "", 100, 20 * (96 / 224) ** 2 / 100),
    ],
)
def test_table_24_warms_up_for_20_passes(model: str, curriculum: str, epochs: float, share: float) -> None:
    asked = {} if epochs >= 200 else {"epochs": epochs}
    run = planned(model, curriculum, **asked)
    assert run.total_samples / IMAGENET == pytest.approx(epochs, rel=1e-3) or run.equivalent_epochs == pytest.approx(
        epochs, rel=1e-3
    )
    assert run.schedule.warmup == pytest.approx(share, rel=2e-3)
    assert warmup_passes(run) == pytest.approx(20, rel=1e-3)


def test_appendix_a_2_warms_up_for_5_passes_of_imagenet_22k() -> None:
    images = REGIMES["imagenet22k"].dataset_size
    usual = planned("cswin_base_224", "constant", images, regime="imagenet22k")
    assert usual.equivalent_epochs == pytest.approx(150, rel=1e-3)
    assert usual.schedule.warmup == pytest.approx(5 / 150, rel=1e-3)
    assert planned("cswin_base_224", "", images, regime="imagenet22k").schedule.warmup == pytest.approx(
        5 * (96 / 224) ** 2 / 75, rel=2e-3
    )


def test_a_short_run_warms_up_for_a_fifth_at_most() -> None:
    assert planned("resnet50", "constant", epochs=30, recipe="paper").schedule.warmup == 0.2
    assert planned("resnet50", "constant", epochs=100, recipe="paper").schedule.warmup == pytest.approx(0.2)


def test_what_is_asked_for_and_what_was_measured_stands() -> None:
    """`light` is for small data and keeps its 5 %; a share that a stored run has goes before passes."""
    assert planned("resnet50", images=6_500, epochs=20).schedule.warmup == 0.05
    assert planned("resnet50", warmup=0.018).schedule.warmup == 0.018
    passes = planned("resnet50", images=6_500, warmup_passes=2, epochs=20)
    assert passes.schedule.warmup == pytest.approx(2 * (96 / 224) ** 2 / 20, rel=0.1)
    assert plan(preset("constant"), epochs=300, schedule=LearningRate(warmup=0.3)).schedule.warmup == 0.3


@pytest.mark.parametrize(
    ("curriculum", "equivalent", "speedup"),
    [
        # Table 8: EfficientTrain 1.53x and EfficientTrain++ 1.50x for ResNet-50, by counted FLOPs; training as usual
        # saves nothing. Table 19 (c) gives `linear` EfficientTrain's compute; in pixels, as at its odd sizes
        # convolutions compute a little more.
        ("constant", 300.0, 1.0),
        ("efficienttrain", 195.9, 1.53),
        ("efficienttrain_plus_plus", 200.0, 1.49),
        ("linear", 195.9, 1.47),
    ],
)
def test_tables_5_7_and_19_c_default_budgets(curriculum: str, equivalent: float, speedup: float) -> None:
    priced = estimate(TrainConfig.from_flat({"model": "resnet50", "curriculum": curriculum}))
    assert priced["baseline_epochs"] == 300
    assert priced["equivalent_epochs"] == pytest.approx(equivalent, rel=0.01)
    assert priced["speedup"] == pytest.approx(speedup, abs=0.015)


def test_a_file_that_counts_passes_has_the_baseline_s_epochs(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    for axis, epochs in (("samples", 300.0), ("compute", 200.0)):
        path.write_text(f"axis: {axis}\nphases: [{{end: 0.5, bandwidth: 96}}, {{end: 1.0, bandwidth: 224}}]")
        assert TrainConfig.from_flat({"model": "resnet50", "curriculum": str(path)}).epochs == epochs
    assert TrainConfig(model="resnet50", curriculum="constant").epochs == 300.0


def test_the_baseline_of_a_comparison_is_the_paper_s(monkeypatch: pytest.MonkeyPatch) -> None:
    source = OfImageNetsSize()
    asked = CompareConfig.from_flat({"model": "resnet50", "data": "images", "budgets": [2 / 3], "seeds": [0]})
    monkeypatch.setattr(Sources, "of", lambda self, config: (source, source))
    baseline, other = (job.plan for job in jobs_of(asked, Path(), Sources()))
    assert (baseline.curriculum, round(baseline.equivalent_epochs)) == ("constant", 300)
    assert baseline.schedule.warmup == pytest.approx(20 / 300, rel=1e-2)
    assert (other.curriculum, round(other.equivalent_epochs)) == ("efficienttrain_plus_plus", 200)
    assert other.schedule.warmup == pytest.approx(20 * (96 / 224) ** 2 / 200, rel=1e-2)

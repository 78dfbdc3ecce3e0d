"""The named recipes and the regimes, against the paper's Table 24, Appendix A and the released commands."""

import json
from typing import Any

import pytest
import yaml

from upchirp import InputError, TrainConfig
from upchirp.training import RECIPES, REGIMES, recipe, recipe_name
from upchirp.training.recipes.config import flat_names

# Table 7, by timm names. Sources: Table 24; the released training commands for drop path and, for CSWin-B, LAMB,
# weight decay 0.1 and EMA 0.9998; PVT's and CAFormer's authors' own training scripts for theirs.
ROWS: dict[str, dict[str, Any]] = {
    "resnet50": {"drop_path": 0.0, "model_ema": False, "clip_grad": None, "amp": True},
    "convnext_tiny": {"drop_path": 0.1, "model_ema": True, "amp": False, "clip_grad": None},
    "convnext_small": {"drop_path": 0.4, "model_ema": True, "amp": False},
    "convnext_base": {"drop_path": 0.5, "model_ema": True, "amp": False},
    "deit_tiny_patch16_224": {"drop_path": 0.1, "clip_grad": 5.0},
    "deit_small_patch16_224": {"drop_path": 0.1, "clip_grad": 5.0},
    "pvt_tiny": {"drop_path": 0.1, "clip_grad": 5.0},
    "pvt_small": {"drop_path": 0.1, "clip_grad": 5.0},
    "pvt_medium": {"drop_path": 0.3, "clip_grad": 5.0},
    "pvt_large": {"drop_path": 0.3, "clip_grad": 5.0},
    "swin_tiny_patch4_window7_224": {"drop_path": 0.2, "clip_grad": 5.0},
    "swin_small_patch4_window7_224": {"drop_path": 0.3, "clip_grad": 5.0},
    "swin_base_patch4_window7_224": {"drop_path": 0.5, "clip_grad": 5.0},
    "cswin_tiny_224": {"drop_path": 0.2, "model_ema": True, "weight_decay": 0.05, "clip_grad": None},
    "cswin_small_224": {"drop_path": 0.4, "model_ema": True},
    "cswin_base_224": {
        "drop_path": 0.5, "model_ema": True, "model_ema_decay": 0.9998, "opt": "lamb", "lr_base": 8e-3,
        "weight_decay": 0.1,
    },
    "caformer_s18": {"drop_path": 0.15, "drop": 0.0, "opt": "lamb", "lr_base": 8e-3},
    "caformer_s36": {"drop_path": 0.3, "drop": 0.4, "opt": "lamb", "lr_base": 8e-3},
    "caformer_m36": {"drop_path": 0.4, "drop": 0.4, "opt": "lamb", "lr_base": 8e-3},
}  # fmt: skip
# Table 24.
SHARED = {
    "lr_base": 4e-3, "opt": "adamw", "weight_decay": 0.05, "opt_betas": None, "warmup": None,
    "warmup_passes": 20.0,
    "mixup": 0.8, "cutmix": 1.0, "reprob": 0.25, "smoothing": 0.1, "randaug_layers": 2,
    "batch_size": 4096, "epochs": 200.0, "model_ema_decay": 0.9999,
}  # fmt: skip


def settings(model: str, **values: Any) -> dict[str, Any]:
    config = TrainConfig.from_flat({"model": model, **values})
    return {**vars(config), **vars(config.optimization), **vars(config.augmentation)}


def test_all_19_rows_have_a_recipe_of_their_own() -> None:
    assert len(ROWS) == 19
    assert {recipe_name(model) for model in ROWS} <= RECIPES.keys()
    assert len({recipe_name(model) for model in ROWS}) == 19


@pytest.mark.parametrize("model", ROWS)
def test_recipe_of_a_row(model: str) -> None:
    found = settings(model)
    for name, value in {**SHARED, **ROWS[model]}.items():
        assert found[name] == value, name
    exception = "efficienttrain_plus_plus_convnext" if "convnext" in model else "efficienttrain_plus_plus"
    assert found["curriculum"] == exception


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("name", ["auto", *RECIPES])
def test_every_recipe_loads_under_every_regime_and_survives_yaml(name: str, regime: str) -> None:
    config = TrainConfig.from_flat({"recipe": name, "regime": regime, "model": "caformer_s36"})
    assert TrainConfig.from_flat(yaml.safe_load(yaml.safe_dump(config.to_flat()))) == config
    assert json.loads(json.dumps(config.to_flat())).keys() == flat_names()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # Appendix A.2.
        ("convnext_base", {"drop_path": 0.1, "lr_base": 4e-3}),
        ("convnext_large", {"drop_path": 0.1}),
        ("cswin_base_224", {"drop_path": 0.2, "lr_base": 2e-3, "weight_decay": 0.05, "opt": "adamw"}),
        ("cswin_large_224", {"drop_path": 0.5, "lr_base": 2e-3, "weight_decay": 0.1, "opt": "adamw"}),
        ("resnet50", {"drop_path": 0.0}),
    ],
)
def test_imagenet_22k(model: str, expected: dict[str, Any]) -> None:
    found = settings(model, regime="imagenet22k")
    assert {name: found[name] for name in expected} == expected
    assert not found["model_ema"] and not found["drop_path_scaling"]
    # Table 12: two thirds of the baseline's 150 epochs for ConvNeXt, half of them for CSWin. A.2: 5 of warm-up.
    assert found["epochs"] == (100 if "convnext" in model else REGIMES["imagenet22k"].baseline_epochs / 2)
    assert (found["warmup"], found["warmup_passes"]) == (None, 5.0)
    assert found["curriculum"].startswith("efficienttrain_plus_plus")


def test_fine_tuning_follows_convnext() -> None:
    found = settings("swin_base_patch4_window7_224", regime="finetune")
    expected = {
        "layer_decay": 0.8, "lr_base": 5e-5, "lr_base_size": 512, "batch_size": 512, "weight_decay": 1e-8,
        "warmup": 0.0, "mixup": 0.0, "cutmix": 0.0, "epochs": 30.0, "curriculum": "constant", "model_ema": True,
        "drop_path": 0.5, "tune": "all", "keep_head": False,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected


def test_fixres_tunes_the_head_and_norms_on_the_view_of_evaluation() -> None:
    found = settings("resnet50", regime="fixres")
    expected = {"tune": "head_and_norms", "crop": "center", "randaug_layers": 0, "reprob": 0.0, "keep_head": True}
    assert {name: found[name] for name in expected} == expected


def test_a_regime_does_not_override_what_is_given() -> None:
    found = settings("resnet50", regime="finetune", epochs=3, mixup=0.1, curriculum="linear")
    assert (found["epochs"], found["mixup"], found["curriculum"]) == (3, 0.1, "linear")


def test_unknown_regime() -> None:
    with pytest.raises(InputError, match="unknown regime 'imagenet': choose one of imagenet1k"):
        recipe("auto", "resnet50", "imagenet")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("resnet18", "resnet50"),
        ("deit_base_patch16_224", "deit_small"),
        ("convnext_tiny.fb_in22k", "convnext_tiny"),
        ("caformer_b36", "caformer_b36"),
        ("vit_tiny_patch16_224", "default"),
        ("mobilenetv4_conv_small", "default"),
        ("cspresnet50", "default"),
    ],
)
def test_recipe_of_other_models(model: str, name: str) -> None:
    assert recipe_name(model) == name

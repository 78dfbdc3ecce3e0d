import ast
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from pathlib import Path

import pytest
import yaml

import upchirp
from upchirp import InputError, TrainConfig
from upchirp.training import RECIPES, Optimization, load_config, recipe, save_config
from upchirp.training.recipes.checks import parse_duration
from upchirp.training.recipes.config import flat_names
from upchirp.training.recipes.group import names_of
from upchirp.training.recipes.groups import Planning


def test_the_saved_config_loads_to_the_same(tmp_path: Path) -> None:
    config = TrainConfig.from_flat(
        {
            "model": "swin_tiny_patch4_window7_224",
            "data": "x",
            "mixup": 0.3,
            "lr": 1e-3,
            "model_kwargs": {"a": [1, 2]},
        }
    )
    save_config(config.to_flat(), tmp_path / "config.yaml")
    assert TrainConfig.from_flat(load_config(tmp_path / "config.yaml")) == config


def test_flags_have_one_name_each() -> None:
    assert set(TrainConfig().to_flat()) == flat_names()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_loads_and_survives_yaml(name: str) -> None:
    config = TrainConfig.from_flat({"recipe": name, "model": "caformer_s36"})
    assert TrainConfig.from_flat(yaml.safe_load(yaml.safe_dump(config.to_flat()))) == config


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # Table 24 and released_code_drop_path.
        ("resnet50", {"opt": "adamw", "drop_path": 0.0, "clip_grad": None, "amp": True}),
        ("convnext_small", {"drop_path": 0.4, "amp": False, "clip_grad": None}),
        ("convnext_base", {"drop_path": 0.5, "amp": False}),
        ("deit_small_patch16_224", {"drop_path": 0.1, "clip_grad": 5.0}),
        ("swin_tiny_patch4_window7_224", {"drop_path": 0.2, "clip_grad": 5.0}),
        ("swin_base_patch4_window7_224", {"drop_path": 0.5}),
        ("caformer_m36", {"opt": "lamb", "lr_base": 8e-3, "clip_grad": None}),
        ("mobilenetv4_conv_small", {"opt": "adamw", "lr_base": 4e-3, "weight_decay": 0.05}),
    ],
)
def test_recipes_are_table_24(model: str, expected: dict) -> None:
    chosen = recipe("auto", model)
    assert {name: getattr(chosen.optimization, name) for name in expected} == expected
    augmentation = chosen.augmentation
    assert (augmentation.mixup, augmentation.cutmix, augmentation.reprob, augmentation.smoothing) == (
        0.8,
        1.0,
        0.25,
        0.1,
    )


def test_file_values_win_over_the_recipe_only_where_given() -> None:
    config = TrainConfig.from_flat({"recipe": "cswin_base", "model_ema": False, "opt_betas": [0.9, 0.95]})
    assert not config.optimization.model_ema
    assert config.optimization.opt_betas == (0.9, 0.95)
    assert config.optimization.weight_decay == 0.1


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    assert TrainConfig.from_flat(yaml.safe_load("lr: 1e-3")).optimization.lr == 0.001


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixupp": 0.1}, "unknown key 'mixupp': did you mean mixup"),
        ({"mixup": "much"}, "mixup is 'much': expected a number"),
        ({"batch_size": 2.5}, "batch_size is 2.5: expected a whole number"),
        ({"batch_size": True}, "expected a whole number"),
        ({"model_ema": 1}, "expected true or false"),
        ({"early_batch": "often"}, "expected a list or auto"),
        ({"early_batch": [64, 2.5]}, "early_batch is \\[64, 2.5\\]: expected a whole number or auto"),
        ({"lr_cap": 0}, "`lr_cap` is 0.0: it must be positive"),
        ({"opt": "adamv"}, "none of timm's optimizers that train here: did you mean"),
        ({"opt_betas": 0.9}, "expected a list"),
        ({"opt_betas": [0.9]}, "adamw has 2"),
        ({"model_kwargs": 3}, "expected keys and values"),
        ({"recipe": "diet_tiny"}, "unknown recipe 'diet_tiny': did you mean deit_tiny"),
        ({"epochs": 0}, "`epochs` is 0"),
        ({"batch_size": 0}, "`batch_size` is 0"),
        ({"workers": -1}, "`workers` is -1"),
        ({"micro_batch": 0}, "`micro_batch` is 0"),
        ({"resume": "auto"}, "`resume='auto'` needs to know the run"),
        ({"model_kwargs": {"num_classes": 3}}, "`model_kwargs` cannot set num_classes: it follows from the data"),
        ({"opt_betas": [1.5, 0.9]}, "opt_betas"),
        ({"time_budget": "soon"}, "write it like"),
        ({"warmup": 1.5}, "warm-up is 1.5"),
        ({"drop_path": 1.0}, "`drop_path` is 1.0"),
        ({"lr": float("nan")}, "`lr` is nan"),
    ],
)
def test_bad_values_get_one_line(values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        TrainConfig.from_flat(values, source="my.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "expected lines of"),
        ("a: 1\nepochs: 1\nepochs: 2", "'epochs' stands twice in one mapping.*line 1"),
        ("variants:\n  - {b: 1, b: 2}", "'b' stands twice"),
    ],
)
def test_bad_files_get_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(tmp_path / "c.yaml")
    with pytest.raises(InputError, match="cannot read"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45m", 2700), ("2h", 7200), ("1h30m", 5400), ("0.5h", 1800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "2 hours", "-1h", "0s", "30m1h"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="`time_budget` is"):
        parse_duration(text)


def test_a_config_knows_what_was_asked_for_and_not_what_the_recipe_says() -> None:
    config = TrainConfig.from_flat({"model": "swin_tiny_patch4_window7_224", "lr": 1e-3})
    assert config.given == {"model", "lr"}
    assert "given" not in config.to_flat()
    assert TrainConfig().given is None


def test_what_a_constructor_is_not_given_is_the_recipes() -> None:
    config = TrainConfig(model="deit_small_patch16_224", epochs=3.0)
    paper = TrainConfig.from_flat({"model": "deit_small_patch16_224", "epochs": 3.0})
    assert config == paper
    assert config.optimization.drop_path == 0.1
    assert TrainConfig(model="convnext_tiny").curriculum == "efficienttrain_plus_plus_convnext"
    # What is given stands, and `replace` fills in nothing.
    own = Optimization(lr=0.5)
    assert TrainConfig(model="deit_small_patch16_224", optimization=own).optimization == own
    assert replace(config, model="resnet50").optimization == config.optimization


def test_groups_check_themselves() -> None:
    for make in (lambda: Planning(epochs=0), lambda: Planning(max_batch_size=8), lambda: Planning(replay=-1)):
        with pytest.raises(InputError, match=r"epochs|max_batch_size|replay"):
            make()


def takers() -> Iterator[tuple[str, set[str], bool]]:
    """Every argument that is a whole configuration: where, what is read of it, and whether it is handed on."""
    for path in Path(upchirp.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for function in ast.walk(ast.parse(text)) if "TrainConfig" in text else ():
            if not isinstance(function, ast.FunctionDef):
                continue
            for argument in [*function.args.args, *function.args.kwonlyargs]:
                if argument.annotation is not None and ast.unparse(argument.annotation) == "TrainConfig":
                    nodes = list(ast.walk(function))
                    uses = [node for node in nodes if isinstance(node, ast.Name) and node.id == argument.arg]
                    read = [node.attr for node in nodes if isinstance(node, ast.Attribute) and node.value in uses]
                    yield f"{path.stem}.{function.name}: {argument.arg}", set(read), len(uses) > len(read)


def test_functions_take_the_group_that_they_read() -> None:
    """A whole configuration goes to those alone that read several groups of it, or hand it on."""
    groups = [set(dir(kind)) | names_of(kind) for kind in TrainConfig.__mro__[1:] if is_dataclass(kind)]
    found = list(takers())
    assert len(found) > 10
    assert not [where for where, read, handed_on in found if not handed_on and any(read <= group for group in groups)]

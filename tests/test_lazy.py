"""Packages import what they export when it is used, and look to everybody as if they had before."""

import ast
import importlib
import pickle
import pkgutil
import pydoc
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.processes import imported_for_a_plan

import upchirp

LAZY = sorted(
    ".".join(("upchirp", *stub.parent.relative_to(Path(upchirp.__path__[0])).parts))
    for stub in Path(upchirp.__path__[0]).rglob("__init__.pyi")
)


def import_if_installed(name: str) -> None:
    """Import a module, unless what it adapts to is missing."""
    try:
        importlib.import_module(name)
    except upchirp.InputError as error:
        assert "which is not installed" in str(error)


def test_the_packages_above_torch_are_lazy() -> None:
    assert {"upchirp", "upchirp.data", "upchirp.training", "upchirp.search", "upchirp.compare"} <= set(LAZY)


@pytest.mark.parametrize("name", LAZY)
def test_names_are_those_of_the_stub(name: str) -> None:
    package = importlib.import_module(name)
    for module in pkgutil.iter_modules(package.__path__, f"{name}."):
        if module.name != "upchirp.__main__":
            # Once it is imported a module would hide a name that is the same.
            import_if_installed(module.name)
    stub = ast.parse(Path(str(package.__file__)).with_suffix(".pyi").read_text(encoding="utf-8"))
    assigned = next(node for node in stub.body if isinstance(node, ast.Assign))
    listed = ast.literal_eval(assigned.value)
    assert package.__all__ == sorted(set(listed))
    assert set(listed) <= set(dir(package))
    for entry in listed:
        assert not isinstance(getattr(package, entry), ModuleType), entry
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def test_no_name_of_a_package_hides_a_module() -> None:
    hidden = []
    for module in pkgutil.walk_packages(upchirp.__path__, "upchirp."):
        package, _, name = module.name.rpartition(".")
        if module.name != "upchirp.__main__":
            import_if_installed(module.name)
        if not isinstance(vars(importlib.import_module(package)).get(name), ModuleType | None):
            hidden.append(module.name)
    assert not hidden


def test_the_public_api_looks_like_any_other() -> None:
    names: dict[str, object] = {}
    exec("from upchirp import *", names)
    assert set(upchirp.__all__) <= names.keys()
    assert names["TrainConfig"] is upchirp.TrainConfig
    assert pickle.loads(pickle.dumps(upchirp.Augmentation(mixup=0.2))) == upchirp.Augmentation(mixup=0.2)
    text = pydoc.render_doc(upchirp, renderer=pydoc.plaintext)
    assert "class TrainConfig" in text
    assert "low_frequency_crop(" in text


def test_a_package_is_there_without_an_import_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    models = importlib.import_module("upchirp.models")
    monkeypatch.delattr(upchirp, "models")
    assert upchirp.models is models  # type: ignore[attr-defined]


def test_what_needs_no_torch_does_not_wait_for_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model: swin_tiny_patch4_window7_224\nmixup: 3 of them\n")
    words = [
        [],
        ["--version"],
        ["completion", "bash"],
        ["trian"],
        ["train", "--recipe", "diet"],
        ["train", "--config", str(tmp_path / "mine.yaml")],
        ["train", "--print-config"],
        *(
            [command, "--modle", "x"]
            for command in ("train", "finetune", "plan", "eval", "predict", "export", "pack", "search", "compare")
        ),
    ]
    program = f"""
import sys
from upchirp.cli import main
import upchirp
print("codes", [main(words) for words in {words!r}])
upchirp.TrainConfig(model="resnet50"), upchirp.efficienttrain_plus_plus(224)
print("imported", [name for name in ("torch", "timm", "numpy", "cv2", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert f"codes {[0, 0, 0, 2, 2, 2, 0] + 9 * [2]}" in done.stdout
    assert "imported []" in done.stdout
    assert done.stderr.count("upchirp: error: ") == 12


def test_a_plan_waits_for_what_it_needs() -> None:
    imported = imported_for_a_plan()
    assert {"torch", "timm", "upchirp"} <= imported
    others = {"jinja2", "matplotlib", "pandas", "scipy", "sklearn", "tensorboard"}
    adapted = {"accelerate", "datasets", "lightning", "onnx", "torchmetrics", "transformers"}
    assert not imported & (others | adapted)

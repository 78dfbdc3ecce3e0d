"""From a trained model to what another library reads."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torchvision

from upchirp.errors import InputError
from upchirp.exporting.hub import write_hub_folder
from upchirp.exporting.names import RESNETS, TORCHVISION, State, for_detectron2, for_mmdet, for_torchvision
from upchirp.exporting.programs import write_onnx, write_program
from upchirp.files import check_folder_of, whole_path
from upchirp.models import size_arguments
from upchirp.training.assets.trained import TrainedModel
from upchirp.training.checkpoints.checkpoint import export_weights

Format = Literal["timm", "hf", "torchvision", "mmdet", "detectron2", "torch", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)


def export(trained: TrainedModel, kind: Format, path: Path, *, facts: Mapping[str, Any] | None = None) -> str:
    """Write a trained model for another library.

    * `timm`: a `.safetensors` file under timm's names, for `timm.create_model(..., checkpoint_path=PATH)`.
    * `hf`: a folder that `timm.create_model("local-dir:PATH", pretrained=True)` and the Hugging Face hub take, with a
      model card.
    * `torchvision`: a file of `torch.save` that torchvision's own model of the same name loads strictly.
    * `mmdet`, `detectron2`: a backbone's file under the names that these libraries load; see `for_mmdet` and
      `for_detectron2`.
    * `torch`: a program of `torch.export`, for any number of images.
    * `onnx`: the same as ONNX.

    Args:
        trained: the model.
        kind: the format.
        path: a file, for `hf` a folder.
        facts: what the run says of itself, for the model card: see `run_facts`.

    Returns:
        How to load it, as a line of Python or a setting.

    Raises:
        InputError: a model that the other library does not have, or `path` exists already.
    """
    if path.exists():
        raise InputError(f"{path} exists already: choose another `output`, or delete it")
    check_folder_of(path, "output")
    if trained.described.in_chans != 3 and kind in ("torchvision", "mmdet", "detectron2"):
        channels = trained.described.in_chans
        raise InputError(f"the models of {kind} take RGB images, and the weights are for {channels} channel(s)")
    name, size = str(trained.described.model), int(trained.described.final_size or 0)
    state = {key: tensor.contiguous() for key, tensor in trained.model.state_dict().items()}
    writers: dict[str, Callable[[], str]] = {
        "timm": partial(_write_timm, state, name, trained, path),
        "hf": partial(write_hub_folder, trained, state, path, facts or {}),
        "torchvision": lambda: _write_torchvision(
            _as_torchvisions(trained, name, state, size), name, trained.outputs, size, path
        ),
        "mmdet": lambda: _write_mmdet(for_mmdet(name, state), name, path),
        "detectron2": lambda: _write_detectron2(for_detectron2(name, state), path),
        "torch": lambda: _write_program(trained, size, path),
        "onnx": lambda: _write_onnx(trained, size, path),
    }
    if kind not in writers:
        raise InputError(f"`format` is {kind!r}: choose one of {', '.join(FORMATS)}")
    if kind in ("mmdet", "detectron2") and name in RESNETS:
        _as_torchvisions(trained, name, state, size)
    return writers[kind]()


@torch.inference_mode()
def _as_torchvisions(trained: TrainedModel, name: str, state: State, size: int) -> dict[str, torch.Tensor]:
    """The state under torchvision's names, by which its model computes the same.

    Raises:
        InputError: torchvision has no such model, or one that computes something else.
    """
    made = for_torchvision(name, state, final_size=size)
    options = {"image_size": size} if name.startswith(("vit", "deit")) else {}
    theirs = torchvision.models.get_model(TORCHVISION[name], num_classes=trained.outputs, **options).eval()
    theirs.load_state_dict(made)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    ours: torch.Tensor = trained.model(images)
    if not torch.allclose(theirs(images), ours, rtol=1e-3, atol=1e-3 * float(ours.abs().max())):
        made_with = ", ".join(f"{key}={value!r}" for key, value in trained.described.model_kwargs.items())
        raise InputError(
            f"this {name}{f' with {made_with}' if made_with else ''} computes something else than the plain one, "
            "which is the only one there"
        )
    return made


def _write_timm(state: dict[str, torch.Tensor], name: str, trained: TrainedModel, path: Path) -> str:
    if path.suffix != ".safetensors":
        raise InputError(f"{path} is to hold tensors: give `output` the suffix .safetensors")
    export_weights(state, path, trained.described.to_dict())
    told = trained.described
    options = {**told.model_kwargs, **({} if told.in_chans == 3 else {"in_chans": told.in_chans})}
    options = {"num_classes": trained.outputs, **size_arguments(name, int(told.final_size or 0), **options), **options}
    asked = "".join(f"{key}={value!r}, " for key, value in options.items())
    return f"timm.create_model({name!r}, {asked}checkpoint_path={str(path)!r})"


def _write_torchvision(state: State, name: str, outputs: int, size: int, path: Path) -> str:
    _save(dict(state), path)
    made = f"num_classes={outputs}" + (f", image_size={size}" if name.startswith(("vit", "deit")) else "")
    return (
        f"model = torchvision.models.{TORCHVISION[name]}({made}); "
        f"model.load_state_dict(torch.load({str(path)!r}, weights_only=True))"
    )


def _write_mmdet(state: State, name: str, path: Path) -> str:
    _save({"state_dict": dict(state)}, path)
    convert = "" if name.startswith(("res", "wide")) else "convert_weights=True, "
    return f"backbone=dict(..., {convert}init_cfg=dict(type='Pretrained', checkpoint={str(path)!r}))"


def _write_detectron2(state: State, path: Path) -> str:
    _save({"model": dict(state), "matching_heuristics": True}, path)
    return f"MODEL.WEIGHTS {path} MODEL.RESNETS.STRIDE_IN_1X1 False INPUT.FORMAT RGB"


def _write_program(trained: TrainedModel, size: int, path: Path) -> str:
    if path.suffix != ".pt2":
        raise InputError(f"{path} is to hold a program: give `output` the suffix .pt2")
    write_program(trained.model, size, path)
    return f"torch.export.load({str(path)!r}).module()(images)"


def _write_onnx(trained: TrainedModel, size: int, path: Path) -> str:
    write_onnx(trained.model, size, path)
    return f"onnxruntime.InferenceSession({str(path)!r}).run(None, {{'images': images}})"


def _save(content: dict[str, Any], path: Path) -> None:
    with whole_path(path) as temporary:
        torch.save(content, temporary)

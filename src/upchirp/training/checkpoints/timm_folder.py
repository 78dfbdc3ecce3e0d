"""`config.json`, by which a run folder is a model for timm: `timm.create_model("local-dir:RUN", pretrained=True)`."""

import json
from pathlib import Path

from timm.models._hub import save_config_for_hf
from torch import nn

from upchirp.files import whole_path
from upchirp.training.checkpoints.description import PROBLEM_TYPE, Description

_OF_TIMMS_WEIGHTS = (
    "tag", "license", "description", "origin_url", "paper_name", "paper_ids", "notes",
    "test_input_size", "test_crop_pct",
)  # fmt: skip
"""What timm says of the weights that it has itself for a model; these are others."""


def write_timm_config(model: nn.Module, described: Description, path: Path) -> None:
    """Write what timm needs to make a model of its own, at its final size, anew and to prepare images for it.

    Nothing is written for a module of the user's own, which timm cannot make.
    """
    if described.model is None:
        return
    seen = described.preprocessing
    size = described.final_size
    kind = {"problem_type": PROBLEM_TYPE} if described.multi_label else {}
    with whole_path(path) as temporary:
        save_config_for_hf(
            model,
            str(temporary),
            model_config={"label_names": list(described.classes), **kind},
            model_args=dict(described.model_kwargs),
            data_config={
                "input_size": (described.in_chans, size, size),
                "mean": seen.mean,
                "std": seen.std,
                "interpolation": seen.interpolation,
                "crop_pct": seen.crop_pct,
                "crop_mode": "center",
            },
        )
        config = json.loads(temporary.read_text(encoding="utf-8"))
        inner = config["pretrained_cfg"]
        config["pretrained_cfg"] = {name: value for name, value in inner.items() if name not in _OF_TIMMS_WEIGHTS}
        temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

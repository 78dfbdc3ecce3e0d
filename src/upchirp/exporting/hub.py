"""A folder as the Hugging Face hub has it: weights, timm's configuration, and a model card that says what was done."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from upchirp.errors import InputError, first_line
from upchirp.reports.words import figure_name
from upchirp.training import read_metrics, read_plan
from upchirp.training.assets.trained import TrainedModel
from upchirp.training.checkpoints.checkpoint import export_weights
from upchirp.training.checkpoints.timm_folder import write_timm_config
from upchirp.training.folders.run_folder import WEIGHTS
from upchirp.training.recipes.config_file import CONFIG, load_config

CARD = "README.md"


def run_facts(run: Path) -> dict[str, Any]:
    """What a run folder says for a model card: `data`, `curriculum`, `epochs`, `steps`, `recipe`, `figure`, and `top1`.

    The last is what the figure says, of images with several labels their mAP.

    Raises:
        InputError: the folder holds no run.
    """
    config, plan = load_config(run / CONFIG), read_plan(run)
    measured = [record for record in read_metrics(run) if record.get("kind") == "end"]
    return {
        "data": Path(str(config.get("data", ""))).name,
        "images": plan.dataset_size,
        "curriculum": plan.curriculum,
        "stages": [(stage.bandwidth, stage.steps) for stage in plan.stages],
        "epochs": round(plan.equivalent_epochs, 2),
        "steps": plan.total_steps,
        "recipe": config.get("recipe"),
        "seed": config.get("seed"),
        # Runs of before there were other tasks lack the figure.
        "figure": measured[-1].get("figure", "top1") if measured else None,
        "top1": measured[-1]["top1"] if measured else None,
    }


def write_hub_folder(
    trained: TrainedModel, state: Mapping[str, torch.Tensor], folder: Path, facts: Mapping[str, Any]
) -> str:
    """Write the folder, and return how to load it.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir()
    export_weights(dict(state), folder / WEIGHTS, trained.described.to_dict())
    write_timm_config(trained.model, trained.described, folder / "config.json")
    (folder / CARD).write_text(model_card(trained, facts), encoding="utf-8")
    return f"timm.create_model({f'local-dir:{folder}'!r}, pretrained=True)"


def model_card(trained: TrainedModel, facts: Mapping[str, Any]) -> str:
    """The text of a model card: what the model is, how it was trained, how well it does, how to use it."""
    seen, name = trained.described.preprocessing, trained.described.model
    lines = [
        "---",
        "library_name: timm",
        "tags:",
        "- image-classification",
        "- timm",
        "- upchirp",
        "pipeline_tag: image-classification",
        "---",
        "",
        f"# {name}",
        "",
        f"A `{name}` for {trained.outputs:,} classes at {trained.described.final_size} px, trained with upchirp, which "
        "shows a network low frequencies first (EfficientTrain++, arXiv 2405.08768).",
        "",
        "| | |",
        "| --- | --- |",
    ]
    measured = facts.get("top1") is not None
    stages = ", ".join(f"{side} px for {steps:,} steps" for side, steps in facts.get("stages", ()))
    rows = {
        "data": f"{facts.get('data')}, {facts['images']:,} training images" if facts.get("images") else None,
        "curriculum": f"{facts.get('curriculum')}: {stages}" if stages else None,
        "budget": f"{facts['epochs']:g} equivalent epochs, {facts['steps']:,} steps" if facts.get("epochs") else None,
        "recipe": facts.get("recipe"),
        "seed": facts.get("seed"),
        **({f"{figure_name(facts['figure'])} on the validation images": f"{facts['top1']:.2f} %"} if measured else {}),
        "preprocessing": f"{seen.interpolation} resize, centre crop of {seen.crop_pct:g}, mean {seen.mean}, "
        f"deviation {seen.std}",
    }
    lines += [f"| {what} | {value} |" for what, value in rows.items() if value is not None]
    lines += [
        "",
        "```python",
        "import timm",
        "",
        'model = timm.create_model("hf-hub:OWNER/NAME", pretrained=True).eval()',
        "transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))",
        "```",
        "",
    ]
    if trained.described.multi_label:
        lines += ["An image may have several classes: the sigmoid of each output is the probability of its class.", ""]
    if trained.described.classes:
        lines += [f"Classes: {json.dumps(list(trained.described.classes), ensure_ascii=False)}", ""]
    return "\n".join(lines)


def push(folder: Path, name: str, *, private: bool = False) -> str:
    """Upload a folder to the Hugging Face hub as OWNER/NAME, and return its address.

    Raises:
        InputError: the hub refuses it, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        api = HfApi()
        repository = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository.repo_id, folder_path=folder)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise InputError(f"cannot push to {name}: {first_line(error)} (sign in by `hf auth login`)") from error
    return str(repository)

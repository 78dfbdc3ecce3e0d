"""The folder of a run: who may use it, and what is read from it."""

import json
from collections.abc import Mapping, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

from upchirp.conversion import plain
from upchirp.curriculum import Plan
from upchirp.data import Augmentation, DataIdentity
from upchirp.errors import InputError, reason_of
from upchirp.files import TEMPORARY_SUFFIX, write_text
from upchirp.training.checkpoints import checkpoint
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.config_file import CONFIG, load_stored, save_config
from upchirp.training.recipes.group import names_of
from upchirp.training.recipes.run_groups import Computation, Keeping, Place

PLAN, DATA, METRICS, CHECKPOINTS, TENSORBOARD = (
    "plan.json",
    "data.json",
    "metrics.jsonl",
    "checkpoints",
    "tensorboard",
)
LOCK = "run.lock"
TIMM_CONFIG = "config.json"
WEIGHTS, WEIGHTS_EMA = "model.safetensors", "model_ema.safetensors"
PREDICTIONS, SCORES = "predictions.npz", "scores.npz"
"""What the exported weights guessed for each validation image."""
REPORT = "report.html"
TRACKING = "tracking.json"
"""By which id each tracker knows the run, which goes on under it."""

MAY_DIFFER = names_of(Place, Keeping, Computation) | {
    "workers", "loader_timeout", "prepare", "device", "deterministic", "micro_batch"
}  # fmt: skip
"""Settings that a resumed run may change: the data, the steps and the learning rates stay the same."""
_CHANGE_ROUNDING = ("micro_batch", "prepare", "device", "compile", "channels_last", "deterministic")
"""Those of them that change the order of floating-point sums, or batch norm's statistics."""

BEFORE_CHOICE = {"prepare": "cpu", "amp_dtype": "bfloat16"}
"""Settings that may be left open, and what runs had of before there was a choice."""


def holds_run(folder: Path) -> bool:
    """Whether a run was started in the folder."""
    return (folder / CONFIG).exists()


def check_is_free(folder: Path) -> None:
    """Raise unless the folder is missing, or empty but for its lock."""
    if holds_run(folder):
        raise InputError(f"{folder} holds another run: go on with it by `resume='auto'`, or choose another `output`")
    # These alone were left by a run that was killed while its folder was made; wandb has a folder in it, too.
    ours = {LOCK, PLAN, DATA, TRACKING, "wandb"}
    if folder.exists() and (
        not folder.is_dir()
        or any(entry.name not in ours and entry.suffix != TEMPORARY_SUFFIX for entry in folder.iterdir())
    ):
        raise InputError(f"{folder} is not an empty folder: choose another `output`")


def check_is_same_run(folder: Path, asked: Mapping[str, Any]) -> list[str]:
    """Raise if the folder's run was started with other settings that matter; else say which others differ.

    Returns:
        One line for each changed setting that keeps the run from being bit-identical to the uninterrupted one.

    Raises:
        InputError: naming the settings that differ.
    """
    # What is left open goes on as it was chosen.
    before = chosen(folder)
    stored = {**read_settings(folder).to_flat(), **before}
    asked = {**asked, **{name: value for name, value in before.items() if asked[name] == "auto"}}
    # The same data lie elsewhere under another name; where they are known, they are compared themselves.
    may_differ = MAY_DIFFER | {"data", "more_data"} if read_data(folder).train else MAY_DIFFER
    check_same_settings(folder, "a run", stored, asked, may_differ)
    return [
        f"{name} was {stored[name]} and is {asked[name]} now: the weights will not be bit-identical"
        for name in _CHANGE_ROUNDING
        if asked[name] != stored[name]
    ]


def check_same_settings(
    folder: Path, job: str, stored: Mapping[str, Any], asked: Mapping[str, Any], may_differ: Set[str]
) -> None:
    """Raise if a folder's job was started with other settings; those that are not stored are taken as the same."""
    asked = _as_measured(asked, stored)
    if different := [name for name in asked if name not in may_differ and asked[name] != stored.get(name, asked[name])]:
        listed = ", ".join(f"{name} {stored[name]} (now {asked[name]})" for name in different[:3])
        raise InputError(
            f"{folder} holds {job} with other settings: {listed}: go on with the same, or choose another `output`"
        )


def _as_measured(asked: Mapping[str, Any], stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is asked for, with the stored mean and type of values where these were measured and none are asked for."""
    usual = plain(asdict(Augmentation()))
    names = ("mean", "std", "pixel_type")
    measured = stored.get("in_chans", 3) != 3 or stored.get("pixel_type") == "float32"
    if not measured or any(asked.get(name) != usual[name] for name in names):
        return asked
    return {**asked, **{name: stored[name] for name in names}}


def read_settings(folder: Path) -> TrainConfig:
    """The settings of the folder's run.

    Raises:
        InputError: a damaged file.
    """
    return TrainConfig.from_flat(load_stored(folder / CONFIG), source=str(folder / CONFIG))


def chosen(folder: Path) -> dict[str, Any]:
    """Settings that may be left open, as they were chosen for the folder's run."""
    settings = read_settings(folder).to_flat()
    return {name: value if settings[name] == "auto" else settings[name] for name, value in BEFORE_CHOICE.items()}


def create(folder: Path, settings: Mapping[str, Any], plan: Mapping[str, Any], data: DataIdentity) -> None:
    """Make the folder of a new run; `plan.json` may hold more than the plan."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / PLAN, json.dumps(plan, indent=2) + "\n")
    write_data(folder, data)
    # Last: a folder holds a run when it holds this.
    save_config(with_absolute_data(settings), folder / CONFIG)


def with_absolute_data(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings by which a run can be gone on with from another working directory."""
    where = {"data": _absolute(settings["data"]), "more_data": [*map(_absolute, settings.get("more_data", ()))]}
    return {**settings, **{name: place for name, place in where.items() if name in settings}}


def _absolute(data: str) -> str:
    where = Path(data).expanduser()
    return str(where.absolute()) if data and where.exists() else data


def write_data(folder: Path, data: DataIdentity) -> None:
    """Keep which data the run is trained on."""
    write_text(folder / DATA, json.dumps(data.to_dict(), indent=2) + "\n")


def read_data(folder: Path) -> DataIdentity:
    """Which data the folder's run is trained on; nothing is known of runs of earlier versions.

    Raises:
        InputError: a damaged file.
    """
    path = folder / DATA
    if not path.exists():
        return DataIdentity()
    try:
        return DataIdentity.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"cannot read {path} ({reason_of(error, path)}): delete it, and the data are taken as the same"
        ) from error


def read_plan(folder: Path) -> Plan:
    """The plan that the folder's run executes.

    Raises:
        InputError: a missing or damaged plan.
    """
    path = folder / PLAN
    try:
        return Plan.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {reason_of(error, path)}") from error


def kept_checkpoints(folder: Path) -> list[Path]:
    """The step checkpoints of the folder's run, the oldest first.

    Raises:
        InputError: there are none.
    """
    if kept := list(checkpoint.checkpoints(folder / CHECKPOINTS)):
        return kept
    raise InputError(f"{folder} kept no checkpoints: train with `checkpoint_keep='all'`")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; a last line that was cut off by a crash is left out."""
    records: list[dict[str, Any]] = []
    path = folder / METRICS
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def finished(folder: Path) -> dict[str, Any] | None:
    """The last line of a finished run's log; `None` if the run is not done or its weights are gone."""
    last = read_metrics(folder)[-1:]
    done = bool(last) and last[0]["kind"] == "end" and (folder / WEIGHTS).exists()
    return last[0] if done else None

"""Parts of a model that stay as they are, for all of a run or at its start, and runs that stop early."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.runs import Make, differing, interrupted, logged, notes
from torch import nn

from upchirp import InputError, TrainConfig, train
from upchirp.data.sources import GeneratedSource
from upchirp.models import create_model
from upchirp.training import Classification, Evaluated, Event, Interrupted, Optimization, Stepped, Trainer
from upchirp.training.assets.models import start_model
from upchirp.training.checkpoints import checkpoint
from upchirp.training.recipes.tuning import freeze_for, freeze_parts


def start(folder: Path, name: str, **options: object) -> tuple[Path, dict[str, torch.Tensor]]:
    """Weights for a run to start from."""
    torch.manual_seed(3)
    state = create_model(name, num_classes=2, final_size=64, **options).state_dict()
    checkpoint.export_weights(state, folder / "start.safetensors", {})
    return folder / "start.safetensors", state


def changed(state: dict[str, torch.Tensor], folder: Path | None, name: str = "model.safetensors") -> set[str]:
    assert folder is not None
    after = load_file(folder / name)
    return {key for key in after if not torch.equal(after[key], state[key])}


def test_frozen_parts_stay_with_their_statistics(config: Make, tmp_path: Path) -> None:
    path, state = start(tmp_path, "test_resnet")
    own = {"model": "test_resnet", "weights": str(path), "keep_head": True, "model_ema": False, "model_kwargs": {}}
    run = config(**own, freeze=["conv1", "bn1", "layer1", "layer2.0"], curriculum="constant", epochs=1, batch_size=16)
    train(run)
    moved = changed(state, run.output)
    frozen = tuple(f"{part}." for part in ("conv1", "bn1", "layer1", "layer2.0"))
    assert moved and not {name for name in moved if name.startswith(frozen)}
    # Statistics of what is trained go on, after evaluations in the middle of the run, too.
    assert {"layer3.0.bn1.running_mean", "fc.weight"} <= moved


def test_groups_are_counted_from_the_stem() -> None:
    vit = create_model("test_vit", num_classes=2, final_size=64, depth=3)
    freeze_parts(vit, 2)
    frozen = {name for name, parameter in vit.named_parameters() if not parameter.requires_grad}
    assert {name.partition(".")[0] for name in frozen} == {"cls_token", "pos_embed", "patch_embed", "blocks"}
    assert all(name.startswith("blocks.0.") for name in frozen if name.startswith("blocks"))


def test_the_head_is_trained_first_and_the_run_resumes_to_the_same(config: Make, tmp_path: Path) -> None:
    path, state = start(tmp_path, "test_vit", depth=2)
    own = {
        "weights": str(path),
        "head_only": 0.5,
        "model_ema": False,
        "checkpoint_interval": 1,
        "checkpoint_keep": "all",
    }
    whole = config(**own)
    halves: list[bool] = []
    moving: dict[int, set[str]] = {}

    def watch(event: Event) -> None:
        if isinstance(event, Stepped):
            halves.append(event.step.progress < 0.5)

    train(whole, observers=[watch])
    assert whole.output is not None
    for path in checkpoint.checkpoints(whole.output / "checkpoints"):
        model = checkpoint.load(path)["state"]["model"]
        moving[checkpoint.step_of(path)] = {name for name in model if not torch.equal(model[name], state[name])}
    head = {"head.weight", "head.bias"}
    first = halves.index(False)
    assert 1 < first < len(halves) - 1
    assert all(moving[step] == head for step in range(1, first + 1))
    assert moving[first + 1] > head
    for step in (2, first + 1):
        again = replace(whole, output=tmp_path / f"again{step}")
        train(interrupted(again, step))
        assert not differing(whole.output, again.output)


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (("layer9",), "`freeze` names 'layer9', which the model does not have: did you mean layer"),
        (("zzz",), "it has conv1, bn1, layer1"),
        (9, "`freeze` is 9: the model has 5 groups of layers before its head"),
        (("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"), "leaves nothing to train"),
    ],
)
def test_parts_that_are_not_there(frozen: int | tuple[str, ...], message: str) -> None:
    with torch.device("meta"):
        model = create_model("resnet10t", num_classes=2)
    with pytest.raises(InputError, match=message):
        freeze_parts(model, frozen)


def test_models_that_do_not_say_enough() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    with pytest.raises(InputError, match="does not say which groups"):
        freeze_parts(model, 1)
    freeze_parts(model, ("0",))
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, False, True, True]
    with pytest.raises(InputError, match="which layer is its classifier"):
        freeze_for(model, Optimization(head_only=0.1))
    for changes in ({"freeze": 0}, {"freeze": ()}, {"head_only": 1.5}):
        with pytest.raises(InputError, match=next(iter(changes))):
            Optimization(**changes)
    with pytest.raises(InputError, match="`parallel='fsdp'` does not go with `head_only`"):
        TrainConfig(parallel="fsdp", optimization=Optimization(head_only=0.1))
    with pytest.raises(InputError, match="`early_stop` is 0"):
        TrainConfig(early_stop=0)


def test_a_run_that_gets_no_better_stops_with_its_best_weights(config: Make, tmp_path: Path) -> None:
    own = {"curriculum": "constant", "lr": 1e-9, "warmup_lr": 1e-9, "min_lr": 0.0, "evaluations": 12, "early_stop": 2}
    run = config(**own, epochs=6, checkpoint_interval=1)
    events: list[Event] = []
    result = train(run, observers=[events.append])
    steps = [line["step"] for line in logged(run.output, "evaluation") if line["weights"] == "ema"]
    (end,) = logged(run.output, "end")
    assert len(steps) == 3 and end["step"] == steps[-1] < result.plan.total_steps
    assert result.top1 == result.best_top1 == end["top1"]
    assert run.output is not None
    best = checkpoint.load_best(run.output / "checkpoints")
    assert best is not None and checkpoint.step_of(best.path) == steps[0]
    assert not changed(best.content["state"]["model"], run.output)
    assert not changed(best.content["state"]["ema"], run.output, "model_ema.safetensors")
    told = (
        f"no better evaluation in 2: stopped after {steps[-1]} steps, and the weights of step {steps[0]} are exported"
    )
    assert [note for note in notes(events) if told in note]
    assert train(replace(run, resume="auto")).top1 == result.top1
    again = replace(run, output=tmp_path / "again")

    def stop(event: Event) -> None:
        if isinstance(event, Evaluated) and event.step == steps[1]:
            signal.raise_signal(signal.SIGINT)

    # The checkpoint is of after the evaluation, which is done again.
    with pytest.raises(Interrupted):
        train(again, observers=[stop])
    train(replace(again, resume="auto"))
    assert logged(again.output, "end")[0]["step"] == steps[-1]
    assert not differing(run.output, again.output)


def test_a_run_that_gets_better_to_its_end_ends_as_without(config: Make, uninterrupted: Path) -> None:
    run = config(early_stop=5)
    train(run)
    (best,) = (run.output / "checkpoints").glob("best_*.pt") if run.output else ()
    if checkpoint.step_of(best) == logged(run.output, "end")[0]["step"]:
        assert not differing(run.output, uninterrupted)
    else:
        assert not changed(checkpoint.load(best)["state"]["ema"], run.output, "model_ema.safetensors")


def test_a_new_heads_first_weights_are_scaled(config: Make, tmp_path: Path) -> None:
    path, state = start(tmp_path, "test_vit", depth=2)
    source = GeneratedSource("train", size=40, num_images=4, num_classes=2)
    heads = []
    for changes in ({}, {"head_init_scale": 0.5}, {"head_init_scale": 0.5, "keep_head": True}):
        run = config(weights=str(path), **changes)
        model, _ = start_model(run, source, None, Classification(), new=True)
        heads.append(model.get_parameter("head.weight"))
    assert torch.equal(heads[1], heads[0] * 0.5)
    assert torch.equal(heads[2], state["head.weight"])


def test_activations_are_computed_anew_to_the_same_weights(config: Make, uninterrupted: Path) -> None:
    run = config(grad_checkpointing=True)
    model = create_model("test_vit", num_classes=2)
    Trainer.of(run, torch.device("cpu")).place(model)
    assert model.grad_checkpointing
    train(run)
    assert not differing(run.output, uninterrupted)
    with pytest.raises(InputError, match="Sequential does not take `grad_checkpointing`"):
        Trainer.of(run, torch.device("cpu")).place(nn.Sequential(nn.Linear(1, 1)))

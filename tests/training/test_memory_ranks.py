"""Memory that runs out on one of two ranks: it redoes the step alone, and the other one waits for its gradients."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tests.processes import finish_ranks
from tests.training.hungry import Hungry

from upchirp import TrainConfig, efficienttrain_plus_plus, plan, train
from upchirp.data import open_data
from upchirp.training import Event, Noted, Reduced, read_metrics
from upchirp.training.engine.memory import MicroBatches, OutOfMemory
from upchirp.training.engine.trainer import Trainer
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.parallel.whole import Replicated

CPU = torch.device("cpu")
SIDES = (32, 48, 64)


def segment(run: TrainConfig, ranks: Ranks, model: Hungry, small: dict[int, int] | None = None) -> dict[str, Any]:
    """Train from the start, one micro-batch of 16 images for each step unless `small` says other from a step on."""
    source, _ = open_data(run.data, 64)
    steps = plan(
        efficienttrain_plus_plus(64, multiple=16), epochs=3, dataset_size=64, batch_size=32, learning_rate=1e-2
    )
    trainer = Trainer.of(run, CPU, Replicated(ranks, deterministic=run.deterministic))
    state = trainer.state(model, bandwidth=64, learning_rate=1e-2)
    loader = trainer.loader(source, steps, micro_batch=16)
    sizes = MicroBatches()
    reduced, failure = {}, None
    results = trainer.run(state, steps, loader, micro_batches=sizes)
    try:
        for step in steps.steps():
            if step.index in (small or {}):
                sizes.sizes[step.bandwidth] = 8
            result = next(results)
            if result.reduced_to:
                reduced[step.index] = result.reduced_to
    except OutOfMemory as error:
        failure = str(error)
    return {"state": state.state_dict(), "reduced": reduced, "failure": failure, "sizes": sizes.reduced}


def on_rank(values: dict[str, Any], folder: Path) -> None:
    """What each rank does: all scenarios, one after the other; a file with what came of each."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    run, ranks = TrainConfig.from_flat(values), Ranks(rank, 2)
    limit = 8 if rank == 1 else 1000
    came: dict[str, Any] = {}
    for where in ("forward", "backward"):
        came[where] = segment(run, ranks, Hungry(limit=limit, where=where))
    small = dict.fromkeys(came["forward"]["reduced"], 8)
    came["small"] = segment(run, ranks, Hungry(), small)
    # The fifth forward pass of more than 8 images is that of the third step, which is not rehearsed any more.
    came["late"] = segment(run, ranks, Hungry(limit=limit, spared=4))
    came["late small"] = segment(run, ranks, Hungry(), dict.fromkeys(came["late"]["reduced"], 8))

    seen: list[Event] = []
    result = train(run, model=Hungry(limit=limit), observers=[seen.append])
    came["run"] = {
        "notes": [event.message for event in seen if isinstance(event, Noted)],
        "reduced": [(event.step.bandwidth, event.micro_batch) for event in seen if isinstance(event, Reduced)],
        "output": str(result.output),
    }
    torch.save(came, folder / f"rank{rank}.pt")
    dist.barrier()
    try:
        came["too late"] = segment(run, ranks, Hungry(limit=limit, spared=4, where="backward"))
    except RuntimeError as error:
        came["too late"] = {"lost": str(error)}
    torch.save(came, folder / f"rank{rank}.pt")


@pytest.fixture(scope="module")
def ranks(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    values = {
        "data": str(image_folder), "model": "resnet18", "final_size": 64, "epochs": 3, "batch_size": 32, "workers": 0,
        "device": "cpu", "deterministic": True, "recipe": "light", "model_ema": True, "mixup": 0.2, "lr": 1e-2,
        "randaug_layers": 1, "evaluations": 1, "log_interval": 1, "output": str(folder / "run"),
    }  # fmt: skip
    done = finish_ranks(2, __file__, json.dumps(values), folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def assert_same(one: Any, other: Any) -> None:
    """The same to the last bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        for own, others in zip(one, other, strict=True):
            assert_same(own, others)
    else:
        assert one == other


@pytest.mark.parametrize(
    ("scenario", "reference"), [("forward", "small"), ("backward", "small"), ("late", "late small")]
)
def test_a_rank_redoes_a_step_alone(ranks: list[dict[str, Any]], scenario: str, reference: str) -> None:
    first, second = ranks
    assert first[scenario]["reduced"] == {}
    assert set(second[scenario]["sizes"]) == set(SIDES)
    assert min(second[scenario]["reduced"]) == (2 if scenario == "late" else 0)
    for rank in ranks:
        assert rank[scenario]["failure"] is None
        assert_same(rank[scenario]["state"], rank[reference]["state"])
    # Statistics of batch norm are means over the ranks; each counts its own micro-batches.
    for part in ("model", "ema"):
        one, other = (
            {name: value for name, value in rank[scenario]["state"][part].items() if "num_batches" not in name}
            for rank in ranks
        )
        assert_same(one, other)
    assert_same(first[scenario]["state"]["optimizer"], second[scenario]["state"]["optimizer"])


def test_all_ranks_take_what_one_can_and_say_so(ranks: list[dict[str, Any]]) -> None:
    first, second = ranks
    assert [rows for _, rows in first["run"]["reduced"]] == [8, 8, 8]
    assert sum("out of memory at " in note for note in first["run"]["notes"]) == 3
    assert second["run"]["reduced"] == first["run"]["reduced"]
    assert second["run"]["output"] == first["run"]["output"]
    output = Path(first["run"]["output"])
    assert sum(record["kind"] == "micro_batch" for record in read_metrics(output)) == 3
    assert all(value.isfinite().all() for value in load_file(output / "model.safetensors").values())


def test_what_ranks_cannot_undo_is_said_and_kept(ranks: list[dict[str, Any]]) -> None:
    first, second = ranks
    failure = second["too late"]["failure"]
    assert "out of memory at 32 px in step 3 while ranks summed gradients, so it cannot be redone" in failure
    assert "the run goes on with 8 images at once there" in failure
    assert second["too late"]["sizes"] == {32: 8}
    assert "lost" in first["too late"]


if __name__ == "__main__":
    on_rank(json.loads(sys.argv[1]), Path(sys.argv[2]))

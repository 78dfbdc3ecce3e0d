"""The state of a training."""

import torch
from torch import nn

from upchirp.training.parallel.part_files import make_moments
from upchirp.training.parallel.ranks import Ranks
from upchirp.training.parallel.sharded import Sharded
from upchirp.training.parallel.state import State


def test_room_for_a_state_is_made_where_the_parameters_are() -> None:
    model = nn.Linear(3, 2, device="meta")
    optimizer = torch.optim.AdamW(model.parameters())
    state = State(
        model=model,
        optimizer=optimizer,
        ema=None,
        scaler=torch.amp.GradScaler("cpu", False),
        bandwidth=32,
        parallel=Sharded(Ranks()),
    )
    sizes = {"weight.exp_avg": (2, 3), "weight.exp_avg_sq": (2, 3), "weight.step": (), "bias.step": ()}
    stored = {f"optimizer.{name}": (torch.Size(size), torch.float32) for name, size in sizes.items()}
    make_moments(state, stored)
    made = [value for values in optimizer.state.values() for value in values.values()]
    assert len(made) == 4 and all(value.device.type == "meta" for value in made)

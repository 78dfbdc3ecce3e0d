"""Whether a loader can go on from where another one was."""

from collections.abc import Mapping
from typing import Any

from upchirp.data.requests import RequestSampler
from upchirp.errors import InputError


def order_of(sampler: RequestSampler) -> dict[str, Any]:
    """What the order of the images follows from, as plain data."""
    stages = [[stage.bandwidth, stage.batch_size, stage.steps] for stage in sampler.plan.stages]
    return {"stages": stages, "seed": sampler.seed}


def check_goes_on(state: Mapping[str, Any], sampler: RequestSampler, *, selects: bool) -> None:
    """Refuse the state of a loader with another selection, plan or seed; states of before lack the order."""
    own = order_of(sampler)
    if (order := state.get("order", own)) != own:
        wrong = "seed" if order["stages"] == own["stages"] else "plan"
        raise InputError(
            f"the state is of a run by another {wrong}, whose batches would not go on where it stopped: go on with "
            f"the {wrong} of the run, or leave the state out and give `start_step`"
        )
    if (state["selection"] is not None) != selects:
        here, there = ("with", "without") if state["selection"] is not None else ("without", "with")
        raise InputError(f"the run was trained {here} selection and is to go on {there}: go on with the same settings")
    if not 0 <= state["step"] <= sampler.plan.total_steps:
        raise InputError(f"step {state['step']} lies outside the plan: go on with the plan of the run")

"""Compiling ahead: all graphs that the rest of a plan needs, before its first step, so that no later one stalls."""

import copy
import time
from collections.abc import Iterator

import torch

from upchirp.curriculum import Step
from upchirp.data import Batch, BatchTransform, RequestSampler
from upchirp.errors import InputError
from upchirp.models import fit_to_bandwidth
from upchirp.training.engine import GraphPerShape, Settings, accumulate
from upchirp.training.state import State


def compile_ahead(state: State, sampler: RequestSampler, transform: BatchTransform, settings: Settings) -> str:
    """Compile forward and backward of each shape of batch that is to come; returns a line on it.

    A copy of the model trains on one grey micro-batch of each shape. Graphs belong to the model's code, so the model
    finds them when its turn comes, and the state is left as it is: weights, statistics of batch norm, moments, random
    numbers. Processes share kernels through torch's cache on disk, so the next run of the kind takes less time.

    Raises:
        InputError: the model cannot be compiled here.
    """
    twin = copy.deepcopy(state.model).train()
    forward = GraphPerShape(twin)
    # Nothing is stepped, so there are no gradients to scale back.
    scaler = torch.amp.GradScaler(settings.device.type, enabled=False)
    sides: list[int] = []
    begun = time.perf_counter()
    with torch.random.fork_rng([settings.device] if settings.device.type == "cuda" else []):
        for step, rows in _first_of_each_shape(sampler):
            fit_to_bandwidth(twin, step.bandwidth)
            side = sampler.plan.final_size if sampler.full_size else step.bandwidth
            try:
                accumulate(forward, scaler, _grey(step, rows, side), transform, settings, Batch.weigh)
            except torch._dynamo.exc.TorchDynamoException as error:
                cause = getattr(error, "inner_exception", error)
                why = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
                raise InputError(
                    f"cannot compile the model for {step.bandwidth} px ({why}): leave --compile out"
                ) from error
            sides.append(step.bandwidth)
    graphs = f"{len(sides)} graph{'s' if len(sides) > 1 else ''}, for {', '.join(map(str, sides))} px"
    return f"compiled {graphs}, before the first step: {time.perf_counter() - begun:.0f} s"


def _first_of_each_shape(sampler: RequestSampler) -> Iterator[tuple[Step, range]]:
    """The first micro-batch of each bandwidth and number of rows from the sampler's start on."""
    seen: set[tuple[int, int]] = set()
    begin = 0
    for stage in sampler.plan.stages:
        begin += stage.steps
        if begin <= sampler.start_step:
            continue
        step = sampler.plan.step(begin - 1)
        for rows in sampler.slices(step):
            if (shape := (step.bandwidth, len(rows))) not in seen:
                seen.add(shape)
                yield step, rows


def _grey(step: Step, rows: range, side: int) -> Batch:
    images = torch.full((len(rows), side, side, 3), 128, dtype=torch.uint8).permute(0, 3, 1, 2)
    labels = torch.zeros(len(rows), dtype=torch.int64)
    return Batch(images, labels, step, rows, labels)

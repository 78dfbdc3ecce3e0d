"""Compiling ahead: all graphs that the rest of a plan needs, before its first step, so that no later one stalls."""

import copy
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from upchirp.curriculum import Step
from upchirp.data import Batch, RequestSampler
from upchirp.errors import InputError, first_line
from upchirp.models import fit_to_tried
from upchirp.training.engine.graphs import GraphPerShape
from upchirp.training.engine.memory import MicroBatches, free_memory, ran_out
from upchirp.training.engine.step import accumulate
from upchirp.training.engine.trainer import Trainer
from upchirp.training.parallel.state import State
from upchirp.training.probing.probe import grey_batch


def compile_ahead(trainer: Trainer, state: State, sampler: RequestSampler, micro_batches: MicroBatches) -> str:
    """Compile forward and backward of each shape of micro-batch that is to come; returns a line on it.

    A copy of the model trains on one grey micro-batch of each shape. Graphs belong to the model's code, so the model
    finds them when its turn comes, and the state is left as it is: weights, statistics of batch norm, moments, random
    numbers. Processes share kernels through torch's cache on disk, so the next run of the kind takes less time.

    Raises:
        InputError: the model cannot be compiled here.
    """
    device = trainer.device
    twin = copy.deepcopy(state.model).train()
    # Under several ranks a graph is cut where gradients are sent off, so the copy is wrapped as the model is.
    passes = state.parallel.passes(twin, GraphPerShape(twin))
    # Nothing is stepped, so there are no gradients to scale back.
    scaler = torch.amp.GradScaler(device.type, enabled=False)
    sides: list[int] = []
    begun = time.perf_counter()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for step, rows in _first_of_each_shape(sampler, micro_batches):
            fit_to_tried(twin, step.bandwidth)
            passes.fit_to(step.bandwidth)
            # Ranks sum gradients with the last micro-batch of a step only: marked as another, it waits for nobody.
            batch = replace(
                grey_batch(step, rows, sampler.image_side(step), trainer.augmentation.channels, device),
                completes_step=False,
            )
            try:
                accumulate(passes, scaler, batch, trainer.on_copies().computing, Batch.weigh)
            except RuntimeError as error:
                if isinstance(error, torch._dynamo.exc.TorchDynamoException):
                    reason = first_line(getattr(error, "inner_exception", error))
                    raise InputError(
                        f"cannot compile the model for {step.bandwidth} px ({reason}): leave `compile` out"
                    ) from error
                if not ran_out(error):
                    raise
                # Memory ran out, as it will in the step itself, which then takes fewer images at once.
                continue
            finally:
                twin.zero_grad(set_to_none=True)
            sides.append(step.bandwidth)
    del twin, passes
    free_memory(device)
    graphs = f"{len(sides)} graph{'s' if len(sides) != 1 else ''}, for {', '.join(map(str, sides))} px"
    return f"compiled {graphs}, before the first step: {time.perf_counter() - begun:.0f} s"


def _first_of_each_shape(sampler: RequestSampler, micro_batches: MicroBatches) -> Iterator[tuple[Step, range]]:
    """One micro-batch of each bandwidth and number of rows from the sampler's start on."""
    seen: set[tuple[int, int]] = set()
    end = 0
    for stage in sampler.plan.stages:
        end += stage.steps
        if end <= sampler.start_step:
            continue
        step = sampler.plan.step(end - 1)
        share = sampler.share(step.batch_size)
        size = micro_batches.sizes.get(stage.bandwidth, sampler.batch_rows(step))
        for rows in (share[row : row + size] for row in range(0, len(share), size)):
            if (shape := (stage.bandwidth, len(rows))) not in seen:
                seen.add(shape)
                yield step, rows

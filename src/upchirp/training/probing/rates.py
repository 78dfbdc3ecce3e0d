"""What the two halves of training do alone, images per second: a loader without a model, a model without a loader."""

import time
from collections.abc import Callable
from itertools import islice, repeat

from upchirp.curriculum import Plan
from upchirp.training.engine.step import StepResult
from upchirp.training.probing.probe import Bench, grey_batch, probe_plan

SECONDS = 3.0
"""How long each is measured by default."""
_LOADER_BATCH = 16
_MODEL_WARMUP, _MODEL_STEPS = 2, 10
_MANY_STEPS = 1_000_000


def loader_speed(
    bench: Bench,
    bandwidth: int,
    *,
    batch_size: int = _LOADER_BATCH,
    seconds: float = SECONDS,
    meanwhile: Callable[[], object] = lambda: None,
) -> float:
    """Images per second that the configured workers bring to the device while nothing is trained.

    `meanwhile` is done while the workers start and prepare what is not counted.
    """
    batches = iter(bench.trainer.loader(bench.source, _probe(bench, bandwidth, len(bench.source), batch_size)))
    next(batches)
    meanwhile()
    for _ in islice(batches, bench.loaded_ahead([(bench.loaded_side(bandwidth), batch_size)])):
        pass
    images, begun, spent = 0, time.perf_counter(), 0.0
    while spent < seconds:
        batch = next(batches)
        # On a device it may still be on its way.
        batch.images[-1, 0, 0, 0].item()
        images += len(batch.labels)
        spent = time.perf_counter() - begun
    del batches  # ends the workers
    return images / spent


def model_speed(bench: Bench, bandwidth: int, micro_batch: int, *, seconds: float = SECONDS) -> float:
    """Images per second that a copy of the model trains on, when they are on the device already.

    It takes no longer than `seconds`, unless one step does.
    """
    trainer, probe = bench.trainer, _probe(bench, bandwidth, micro_batch, micro_batch)
    side, channels = bench.loaded_side(bandwidth), trainer.augmentation.channels
    state = trainer.probe_state(bench.model, bandwidth=bench.curriculum.final_size)
    batch = grey_batch(probe.step(0), range(micro_batch), side, channels, trainer.device)
    results = trainer.run(state, probe, repeat(batch))
    ends = [_end(result) for result in islice(results, _MODEL_WARMUP)]
    steps = max(1, min(_MODEL_STEPS, int(seconds / (ends[-1] - ends[-2]))))
    *_, last = islice(results, steps)
    return steps * micro_batch / (_end(last) - ends[-1])


def _end(result: StepResult) -> float:
    """When the device was done with a step, seconds."""
    result.loss.item()
    return time.perf_counter()


def _probe(bench: Bench, bandwidth: int, dataset_size: int, batch_size: int) -> Plan:
    """A plan that begins at a bandwidth and stays there for longer than anything is measured."""
    sizes = dict.fromkeys((bandwidth, bench.curriculum.final_size), batch_size)
    return probe_plan(bench.curriculum, sizes, _MANY_STEPS, dataset_size)

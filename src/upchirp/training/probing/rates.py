"""What the two halves of training do alone, images per second: a loader without a model, a model without a loader."""

import time
from collections.abc import Callable
from itertools import islice, repeat

from torch import nn

from upchirp.curriculum import Curriculum, Plan
from upchirp.data import Source
from upchirp.training.engine.step import StepResult
from upchirp.training.engine.trainer import Trainer
from upchirp.training.probing.grey import grey_batch
from upchirp.training.probing.probe import loaded_ahead, loaded_side, probe_plan

SECONDS = 3.0
"""How long each is measured by default."""
_LOADER_BATCH = 16
_MODEL_WARMUP, _MODEL_STEPS = 2, 10
_MANY_STEPS = 1_000_000


def loader_speed(
    trainer: Trainer,
    curriculum: Curriculum,
    bandwidth: int,
    source: Source,
    *,
    batch_size: int = _LOADER_BATCH,
    seconds: float = SECONDS,
    meanwhile: Callable[[], object] = lambda: None,
) -> float:
    """Images per second that the configured workers bring to the device while nothing is trained.

    Args:
        trainer: how to load.
        curriculum: gives the magnitude and the final size.
        bandwidth: side of the images, pixels.
        source: the training images.
        batch_size: images that arrive together.
        seconds: how long to measure.
        meanwhile: done while the workers start and prepare what is not counted.
    """
    probe = _probe(curriculum, bandwidth, len(source), batch_size)
    batches = iter(trainer.loader(source, probe))
    next(batches)
    meanwhile()
    side = loaded_side(trainer, curriculum, bandwidth)
    for _ in islice(batches, loaded_ahead(trainer, [(side, batch_size)])):
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


def model_speed(
    trainer: Trainer,
    curriculum: Curriculum,
    bandwidth: int,
    model: nn.Module,
    micro_batch: int,
    *,
    seconds: float = SECONDS,
) -> float:
    """Images per second that a copy of the model trains on, when they are on the device already.

    Args:
        trainer: how to train.
        curriculum: gives the magnitude and the final size, which the model is made for.
        bandwidth: side of the images, pixels.
        model: on the device; it is left as it is.
        micro_batch: images that are computed at once.
        seconds: how long to measure at most, unless one step takes longer.
    """
    probe = _probe(curriculum, bandwidth, micro_batch, micro_batch)
    side = loaded_side(trainer, curriculum, bandwidth)
    state = trainer.probe_state(model, bandwidth=curriculum.final_size)
    results = trainer.run(
        state,
        probe,
        repeat(grey_batch(probe.step(0), range(micro_batch), side, trainer.augmentation.channels, trainer.device)),
    )
    ends = [_end(result) for result in islice(results, _MODEL_WARMUP)]
    steps = max(1, min(_MODEL_STEPS, int(seconds / (ends[-1] - ends[-2]))))
    *_, last = islice(results, steps)
    return steps * micro_batch / (_end(last) - ends[-1])


def _end(result: StepResult) -> float:
    """When the device was done with a step, seconds."""
    result.loss.item()
    return time.perf_counter()


def _probe(curriculum: Curriculum, bandwidth: int, dataset_size: int, batch_size: int) -> Plan:
    """A plan that begins at a bandwidth and stays there for longer than anything is measured."""
    sizes = dict.fromkeys((bandwidth, curriculum.final_size), batch_size)
    return probe_plan(curriculum, sizes, _MANY_STEPS, dataset_size)

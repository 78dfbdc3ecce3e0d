"""The loader: a plan's requests in, uint8 batches out."""

import os
import signal
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, default_collate

from upchirp.curriculum import Plan, Step
from upchirp.data.augmentation import Augmentation, LowFrequency, Mode, TrainTransform
from upchirp.data.batch import BatchTransform
from upchirp.data.decoding import Picture, Pixels
from upchirp.data.mixing import Targets
from upchirp.data.replay import ReplayBuffer
from upchirp.data.requests import Request, RequestSampler, replacement
from upchirp.data.sources import Source, as_source
from upchirp.errors import InputError

_REPLACEMENT_ATTEMPTS = 20
_GRACE_SECONDS = 60

DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on files that are damaged or no images."""


@dataclass(frozen=True)
class Corrupt:
    """An image that could not be read and was replaced by another."""

    index: int
    """Its index in the data set."""
    name: str
    """Its path or name."""
    reason: str
    """What the decoder said."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch: the images of some rows of a step's global batch."""

    images: torch.Tensor
    """uint8, (rows, 3, S, S), channels last in memory; S is the bandwidth, or the final size with
    `low_frequency="crop"`."""
    labels: torch.Tensor
    """int64, (rows,)."""
    step: Step
    """The step that the batch belongs to."""
    rows: range
    """Which rows of the step's global batch these are."""
    completes_step: bool = True
    """Whether these are the last rows of this rank's share of the step."""
    corrupt: tuple[Corrupt, ...] = ()
    """Fresh images that were replaced because they could not be read."""

    def prepare(self, transform: BatchTransform, device: torch.device | str = "cpu") -> tuple[torch.Tensor, Targets]:
        """Model inputs (rows, 3, B, B) and mixed targets, on a device."""
        return transform(
            self.images.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            bandwidth=self.step.bandwidth,
            step=self.step.index,
            batch_size=self.step.batch_size,
            first_row=self.rows.start,
        )

    @property
    def bandwidth(self) -> int:
        """Side in pixels of the low-frequency input."""
        return self.step.bandwidth

    @property
    def learning_rate(self) -> float:
        """Learning rate of the step."""
        return self.step.learning_rate

    @property
    def progress(self) -> float:
        """Share of the run done before the step, in [0, 1)."""
        return self.step.progress


class Loader:
    """Batches of a plan's steps, in order, from a source or a map-style data set of `(image, label)`.

    What the plan replays comes from a buffer in this process, which begins each stage empty. A loader that starts
    inside a stage first asks again for what the buffer would hold, and then yields what one from step 0 yields.

    Args:
        data: a `Source`, a Hugging Face `datasets.Dataset`, or any map-style `torch.utils.data.Dataset` of
            `(image, label)` with images as PIL images, uint8 (3, H, W) tensors or uint8 (H, W, 3) arrays. It must not
            augment: the loader does.
        plan: what to train on; its data-set size must be `len(data)`.
        augmentation: crop, flip and RandAugment settings.
        mode: `fast` crops straight to the bandwidth; `faithful` keeps the released code's order of work.
        low_frequency: `lanczos` reduces to the bandwidth in the worker; `crop` leaves that to the device.
        seed: seed of the run.
        workers: loader processes; 0 loads in this one.
        start_step: where to begin, for resuming.
        micro_batch: images in one batch; by default a rank's whole share of the step.
        rank: this process.
        world_size: number of processes.
        pin_memory: give batches in page-locked memory.
        share_cores: the model trains on the cores that the workers run on, so let them wait for idle time: a worker
            that takes a core from a parallel region of the model stalls the whole region.

    Raises:
        InputError: a plan for another data-set size, or sizes that do not divide.
    """

    def __init__(
        self,
        data: Source | Dataset[Any],
        plan: Plan,
        *,
        augmentation: Augmentation | None = None,
        mode: Mode = "fast",
        low_frequency: LowFrequency = "lanczos",
        seed: int = 0,
        workers: int = 2,
        start_step: int = 0,
        micro_batch: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        share_cores: bool = False,
    ) -> None:
        source = as_source(data)
        if len(source) != plan.dataset_size:
            raise InputError(
                f"the plan is for {plan.dataset_size} images but the data set has {len(source)}: "
                f"plan with dataset_size={len(source)}"
            )
        self.augmentation = augmentation or Augmentation()
        self.sampler = RequestSampler(
            plan,
            seed=seed,
            start_step=start_step,
            micro_batch=micro_batch,
            rank=rank,
            world_size=world_size,
            full_size=low_frequency == "crop",
        )
        self._pin_memory = pin_memory
        transform = TrainTransform(self.augmentation, plan.final_size, mode=mode, low_frequency=low_frequency)
        self._loader: DataLoader[Any] = DataLoader(
            _Requested(source, transform),
            batch_sampler=self.sampler,
            collate_fn=_as_is,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_start_in_background if share_cores else _start_worker,
            # Without a generator of its own the loader would draw a seed from the global one and change the run.
            generator=torch.Generator().manual_seed(0),
        )

    def __iter__(self) -> Iterator[Batch]:
        sampler = self.sampler
        loaded = iter(self._loader)
        stage, buffer = -1, self._buffer(0)
        for step, rows in sampler.parts():
            if step.stage != stage:
                stage, buffer = step.stage, self._buffer(step.stage)
            corrupt: tuple[Corrupt, ...] = ()
            if fresh := step.fresh_rows(rows):
                prepared = next(loaded)
                if isinstance(prepared, InputError):
                    raise prepared
                images, labels, corrupt = prepared
                if step.replay.batches:
                    buffer.add(step, fresh, images, labels)
            if step.index < sampler.start_step:
                continue
            if len(fresh) < len(rows):
                images, labels = buffer.take(step, rows)
            yield Batch(images, labels, step, rows, rows.stop == sampler.share(step.batch_size).stop, corrupt)

    def __len__(self) -> int:
        return self.sampler.micro_batches

    def _buffer(self, stage: int) -> ReplayBuffer:
        """An empty buffer for this rank's share of a stage; memory is taken with the first image."""
        of = self.sampler.plan.stages[stage]
        return ReplayBuffer(
            self.sampler.share(of.batch_size),
            self.sampler.window(of),
            most=of.steps // of.replay.cycle + 2,
            seed=self.sampler.seed,
            pin_memory=self._pin_memory,
        )


class _Requested(Dataset[Any]):
    """What a worker runs: requests to stacked uint8 images, with damaged images replaced."""

    def __init__(self, source: Source, transform: Callable[[Picture, Request], Pixels]) -> None:
        self.source = source
        self.transform = transform

    def __getitems__(
        self, requests: Sequence[Request]
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[Corrupt, ...]] | InputError:
        corrupt: list[Corrupt] = []
        try:
            pairs = [self._load(request, corrupt) for request in requests]
        except InputError as error:
            # Handed over as a value: what a worker raises arrives wrapped in its traceback.
            return error
        # In a worker torch stacks them in shared memory right away, which saves a copy.
        images = default_collate([torch.from_numpy(image) for image, _ in pairs]).permute(0, 3, 1, 2)
        labels = torch.tensor([label for _, label in pairs], dtype=torch.int64)
        return images, labels, tuple(corrupt)

    def _load(self, request: Request, corrupt: list[Corrupt]) -> tuple[Pixels, int]:
        current = request
        for attempt in range(_REPLACEMENT_ATTEMPTS):
            try:
                image, label = self.source.load(current.index)
                return self.transform(image, current), label
            except InputError:
                raise
            except DECODE_ERRORS as error:
                corrupt.append(Corrupt(current.index, self.source.describe(current.index), str(error)))
                current = replacement(request, len(self.source), attempt)
        raise InputError(
            f"{_REPLACEMENT_ATTEMPTS} images in a row cannot be read, the last one {corrupt[-1].name} "
            f"({corrupt[-1].reason}): check the data folder"
        )


def outlive_interrupts(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM to the training process, which ends its loader workers after it has saved.

    Both often reach the whole process group. SIGTERM still ends a worker after a minute, so none is left behind.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda signum, frame: _end_later())


def _start_worker(worker: int) -> None:
    outlive_interrupts(worker)
    # One core each, and threads that the training process may have started do not survive the fork.
    cv2.setNumThreads(0)


def _start_in_background(worker: int) -> None:
    _start_worker(worker)
    if hasattr(os, "nice"):
        os.nice(19)


def _end_later() -> None:
    signal.alarm(_GRACE_SECONDS)


def _as_is(batch: Any) -> Any:
    return batch

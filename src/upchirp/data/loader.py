"""The loader: a plan's requests in, uint8 batches out."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch.utils.data import Dataset

from upchirp.curriculum import Curriculum, Operator, Plan, Selection, Step
from upchirp.data.arrival import Fresh
from upchirp.data.batch import Batch
from upchirp.data.device.moment import Transform
from upchirp.data.device.transform import BatchTransform, check_transforms
from upchirp.data.fresh import FreshImages
from upchirp.data.label_sets import label_sets_of
from upchirp.data.loader_state import check_goes_on, order_of
from upchirp.data.replay import ReplayBuffer, Samples
from upchirp.data.requests import RequestSampler, fresh_positions, place_of
from upchirp.data.selection import Merge, PassSummary, SelectedPasses
from upchirp.data.settings import (
    DEFAULT_TIMEOUT,
    Augmentation,
    Mode,
    Prepare,
    check_device_channels,
    check_prepare,
    check_reduction,
    loader_processes,
)
from upchirp.data.sources import Source, as_source
from upchirp.data.unreadable import WarnOfCorrupt
from upchirp.data.workers.requested import Corrupt, SingleImages
from upchirp.errors import InputError


class Loader:
    """Batches of a plan's steps, in order, from a source or a map-style data set of `(image, label)`.

    What the plan replays comes from a buffer in this process, which begins each stage empty. A loader that starts
    inside a stage first asks again for what the buffer would hold, and then yields what one from step 0 yields.

    With `select` each pass leaves out images of low loss, which your step hands in by `losses = loader.record(batch,
    losses)`. When a pass ends, its successor is made from the losses of all steps until then, so the workers start anew
    with empty hands: the device waits for as long as one of them takes for a batch or two. Such a loader is iterated
    once.

    Args:
        data: a `Source`, a Hugging Face `datasets.Dataset`, or any map-style `torch.utils.data.Dataset` of
            `(image, label)` with images as PIL images, uint8 (3, H, W) tensors or uint8 (H, W, 3) arrays. It must not
            augment: the loader does.
        plan: what to train on; its data-set size must be `len(data)`.
        augmentation: its settings; crop, flip and RandAugment are done here, the others by `transform`.
        mode: `fast` crops straight to the bandwidth; `faithful` keeps the released code's order of work.
        low_frequency: what reduces images where the plan's stages name no operator: `lanczos` in the workers; `crop`,
            `nearest`, `bilinear` or `bicubic` on the device, from the final size.
        seed: seed of the run.
        workers: loader processes, by default one for each core, 16 at most, each of which prepares a part of a batch at
            a time; 0 loads in this one.
        start_step: where to begin, for resuming.
        micro_batch: images in one batch, or of each bandwidth; by default a rank's whole share of the step.
        rank: this process; by default, like `world_size`, as `torch.distributed` says if its process group is open.
        world_size: number of processes, each of which takes its share of the rows.
        device: where batches are given. On CUDA the next one is copied there, on a stream of its own, while one is
            trained on; what is replayed is kept there too.
        prepare: `cpu` prepares images in the workers; `device` lets them only read and decode the crops, and resizes,
            mirrors and augments on the device: the same images but for rounding. It wants `mode="fast"` and
            `low_frequency="lanczos"`, and pays where the device is faster than the workers. `device-jpeg` leaves
            decoding JPEG files to a CUDA device too, and needs `pip install 'upchirp[gpu]'`.
        pin_memory: give batches that stay on the host in page-locked memory.
        share_cores: the model trains on the cores that the workers run on, so let them wait for idle time: a worker
            that takes a core from a parallel region of the model stalls the whole region.
        select: leave out images of low loss (InfoBatch); by default every pass is whole.
        merge: with `select` and several processes: brings their scores together; see `SelectedPasses`.
        transforms: of one's own, by the names that the plan's stages give them, for `transform`.
        timeout: seconds without a batch from the workers after which iterating raises an `InputError`; 0 waits forever.
        on_corrupt: called with each batch's unreadable images, which were replaced by others; by default the first few
            are warnings, and iterating raises an `InputError` when there are more than 1 % (and more than one) of them.

    Raises:
        InputError: a plan for another data-set size, sizes that do not divide, selection by several processes, or what
            the device does not prepare.

    >>> from PIL import Image
    >>> from upchirp.curriculum import efficienttrain_plus_plus, plan
    >>> pictures = [(Image.new("RGB", (40, 40)), number % 2) for number in range(16)]
    >>> run = plan(efficienttrain_plus_plus(32), epochs=1, dataset_size=16, batch_size=8)
    >>> loader = Loader(pictures, run, workers=0)
    >>> for batch in loader:
    ...     inputs, targets = batch.prepare(loader.transform)
    ...     batch.bandwidth, tuple(inputs.shape), inputs.dtype, tuple(targets.dense(2).shape)
    (14, (8, 3, 14, 14), torch.float32, (8, 2))
    (14, (8, 3, 14, 14), torch.float32, (8, 2))
    (23, (8, 3, 23, 23), torch.float32, (8, 2))
    (23, (8, 3, 23, 23), torch.float32, (8, 2))
    (32, (8, 3, 32, 32), torch.float32, (8, 2))
    """

    def __init__(
        self,
        data: Source | Dataset[Any],
        plan: Plan,
        *,
        augmentation: Augmentation | None = None,
        mode: Mode = "fast",
        low_frequency: Operator = "lanczos",
        seed: int = 0,
        workers: int | None = None,
        start_step: int = 0,
        micro_batch: int | Mapping[int, int] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        device: torch.device | str = "cpu",
        prepare: Prepare = "cpu",
        pin_memory: bool = False,
        share_cores: bool = False,
        select: Selection | None = None,
        merge: Merge | None = None,
        transforms: Mapping[str, Transform] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        on_corrupt: Callable[[Sequence[Corrupt]], None] | None = None,
    ) -> None:
        if not isinstance(plan, Plan):
            made = (
                "make one of it by `upchirp.plan`" if isinstance(plan, Curriculum) else "give the data, then the plan"
            )
            raise InputError(f"the plan is a {type(plan).__name__}: {made}")
        source = as_source(data)
        if len(source) != plan.dataset_size:
            raise InputError(
                f"the plan is for {plan.dataset_size} images but the data set has {len(source)}: "
                f"plan with dataset_size={len(source)}"
            )
        workers = loader_processes(workers)
        for operator in {low_frequency, *(stage.operator or low_frequency for stage in plan.stages)}:
            check_prepare(prepare, mode, operator)
        check_reduction(plan.stages, low_frequency, plan.final_size)
        rank, world_size = place_of(rank, world_size)
        if select is not None and world_size > 1 and merge is None:
            raise InputError("selection by several processes needs `merge`, which brings their scores together")
        self.augmentation = augmentation or Augmentation()
        """Crop, flip, RandAugment, erasing, mixing and smoothing."""
        check_device_channels(prepare, self.augmentation.channels)
        self._own = dict(transforms or {})
        self.selected = None if select is None else SelectedPasses(select, plan.dataset_size, seed, merge)
        self.label_sets = label_sets_of(source)
        """What labels stand for, where images have several; see `multi_hot`."""
        self.sampler = RequestSampler(
            plan,
            seed=seed,
            start_step=start_step,
            micro_batch=micro_batch,
            rank=rank,
            world_size=world_size,
            low_frequency=low_frequency,
            pixel_bytes=self.augmentation.channels.bytes,
            order=self.selected,
        )
        self.prepare: Prepare = prepare
        self._pin_memory = pin_memory and torch.cuda.is_available()
        self._fresh = FreshImages(
            source,
            self.sampler,
            self.augmentation,
            mode=mode,
            low_frequency=low_frequency,
            prepare=prepare,
            workers=workers,
            device=torch.device(device),
            pin_memory=self._pin_memory,
            share_cores=share_cores,
            # With selection there is one iteration of the workers for each pass.
            stay=select is not None,
            timeout=timeout,
        )
        self._on_corrupt = on_corrupt or WarnOfCorrupt(len(source))
        self._next_step = start_step
        self._iterated = False

    def __iter__(self) -> Iterator[Batch]:
        if self._iterated and self.selected is not None:
            raise InputError("a loader with selection is iterated once, as its scores go on: make a new one")
        self._iterated = True
        sampler, fresh_from = self.sampler, self._fresh.batches()
        loaded: Generator[Fresh, None, None] | None = None
        stage, buffer = -1, self._buffer(0)
        for step, rows in sampler.parts():
            if step.stage != stage:
                stage, buffer = step.stage, self._buffer(step.stage)
            share = sampler.share(step.batch_size)
            passes: tuple[PassSummary, ...] = ()
            if rows.start == share.start and (passes := self._extend(step)) and loaded is not None:
                loaded.close()
                loaded = None
            corrupt: tuple[Corrupt, ...] = ()
            sent = 0
            if fresh := step.fresh_rows(rows):
                loaded = loaded or fresh_from(step.index)
                images, labels, corrupt, sent = next(loaded)
                self._on_corrupt(corrupt)
                positions = fresh_positions(step, rows)
                order = sampler.order.take(positions.start, len(positions))
                samples = Samples(images, labels, *map(torch.from_numpy, order))
                if step.replay.batches:
                    buffer.add(step, fresh, samples)
            if step.index < sampler.start_step:
                continue
            if len(fresh) < len(rows):
                samples = buffer.take(step, rows)
            completes_step = rows.stop == share.stop
            self._next_step = step.index + completes_step
            weights = samples.weights if bool((samples.weights != 1).any()) else None
            yield Batch(
                samples.images,
                samples.labels,
                step,
                rows,
                samples.indices,
                weights,
                completes_step,
                corrupt,
                passes,
                prepared=len(fresh),
                sent_bytes=sent,
            )

    def __len__(self) -> int:
        return self.sampler.micro_batches

    @cached_property
    def transform(self) -> BatchTransform:
        """What the device does with the batches, for `Batch.prepare`; by the loader's own augmentation and seed."""
        sampler = self.sampler
        check_transforms((stage.transform for stage in sampler.plan.stages), self._own)
        return BatchTransform(self.augmentation, seed=sampler.seed, low_frequency=sampler.low_frequency, own=self._own)

    @property
    def dataset(self) -> Dataset[Any]:
        """Images by their requests: with `sampler` what any `DataLoader` needs to give the same images and labels.

        `DataLoader(loader.dataset, batch_sampler=loader.sampler)` gives images (rows, channels, S, S) and labels
        (rows,) for each micro-batch from the start step on. An image that cannot be read is replaced with a warning.

        Raises:
            InputError: replay, selection and preparation on the device take the loader itself.
        """
        replays = any(stage.replay.batches for stage in self.sampler.plan.stages)
        if replays or self.selected is not None or self.prepare != "cpu":
            raise InputError("replay, selection and preparation on the device need the loader: iterate over it")
        return SingleImages(self._fresh.requested)

    def record(self, batch: Batch, losses: torch.Tensor) -> torch.Tensor:
        """Take note of the loss of each row, and return the losses to train on; without selection they are the same.

        Nothing waits for the device. With mixup or CutMix the loss of a mixed row counts for the row's own image.

        Args:
            batch: the batch.
            losses: (rows,), not reduced, for instance `mixed_cross_entropy(..., reduction="none")`.

        Returns:
            (rows,): the losses times the batch's weights, of which the mean is to be taken.

        Raises:
            InputError: not one loss for each row.
        """
        if losses.shape != batch.indices.shape:
            raise InputError(
                f"losses of shape {tuple(losses.shape)} for {len(batch.indices)} images: give one for each, "
                f'with reduction="none"'
            )
        if self.selected is not None:
            # No batch has 2^31 rows.
            self.selected.record(batch.indices, losses, batch.step.index << 31 | batch.rows.start)
        return batch.weigh(losses)

    def state_dict(self) -> dict[str, Any]:
        """Where the run is, after the step of the batch that came last: tensors and plain values."""
        selection = None if self.selected is None else self.selected.state_dict(self._oldest_position(self._next_step))
        return {"step": self._next_step, "selection": selection, "order": order_of(self.sampler)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`: the batches are those that would have come next.

        Raises:
            InputError: the state of a loader with another selection, plan or seed.
        """
        check_goes_on(state, self.sampler, selects=self.selected is not None)
        if self.selected is not None:
            self.selected.load_state_dict(state["selection"])
        self.sampler.start_step = self._next_step = state["step"]
        self._iterated = False

    def _extend(self, step: Step) -> tuple[PassSummary, ...]:
        """Make the passes that begin in a step, if any do."""
        end = fresh_positions(step).stop
        if self.selected is None or self.selected.reaches(end):
            return ()
        self.selected.forget(self._oldest_position(step.index))
        return self.selected.extend(step, end)

    def _oldest_position(self, index: int) -> int:
        """The first position that is needed when a step begins, the replay buffer's included."""
        plan, oldest = self.sampler.plan, self.sampler.oldest_step(index)
        return plan.step(oldest).first_fresh if oldest < plan.total_steps else plan.total_fresh_samples

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

"""Fresh images of a plan: prepared by worker processes, and where asked for on the device."""

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from upchirp.curriculum import Operator
from upchirp.data.arrival import Arrival, Fresh, opened
from upchirp.data.device.decoding import jpeg_decoder
from upchirp.data.device.preparation import Preparation
from upchirp.data.images.augmentation import TrainTransform
from upchirp.data.images.regions import LaidOut, RegionTransform
from upchirp.data.requests import RequestSampler
from upchirp.data.settings import Augmentation, Mode, Prepare
from upchirp.data.sources import Source
from upchirp.data.workers.chunks import Chunks, ChunkSize
from upchirp.data.workers.processes import batches_of, loader_of, start_in_background, start_worker
from upchirp.data.workers.requested import Requested, finished
from upchirp.data.workers.slots import Slots


class FreshImages:
    """Makes the batches of fresh images that a sampler asks for; see `Loader` for the arguments that are its own.

    Args:
        source: the images.
        sampler: says which of them make up each batch.
        stay: let the processes stay when an iteration ends, for the next one.
    """

    def __init__(
        self,
        source: Source,
        sampler: RequestSampler,
        augmentation: Augmentation,
        *,
        mode: Mode,
        low_frequency: Operator,
        prepare: Prepare,
        workers: int,
        device: torch.device,
        pin_memory: bool,
        share_cores: bool,
        stay: bool,
        timeout: float,
    ) -> None:
        self._sampler = sampler
        self._chunk_size = ChunkSize(prepare, augmentation.channels)
        self._workers = workers
        self._share_cores = share_cores
        self._stay = stay
        self._timeout = timeout
        final_size = sampler.plan.final_size
        preparation = decoder = None
        if prepare != "cpu":
            leave_encoded = prepare == "device-jpeg"
            preparation = Preparation(augmentation, final_size, mode)
            decoder = jpeg_decoder(device) if leave_encoded else None
            regions = RegionTransform(augmentation, final_size, mode=mode, leave_encoded=leave_encoded)
            self.requested = Requested(source, regions, LaidOut(augmentation.randaug_layers))
        else:
            transform = TrainTransform(augmentation, final_size, mode=mode, low_frequency=low_frequency)
            self.requested = Requested(source, transform.begin, partial(finished, transform))
        self.arrival = Arrival(device, preparation, decoder, pin_memory=pin_memory)

    def batches(self) -> Callable[[int], Generator[Fresh, None, None]]:
        """A function that gives the batches from a step on; all that it gives come from the same processes."""
        sampler, slots = self._sampler, self.slots()
        data_loader = self.data_loader(slots)

        def from_step(index: int) -> Generator[Fresh, None, None]:
            sampler.resume_step = index
            shapes = ((len(step.fresh_rows(rows)), step.bandwidth) for step, rows in sampler.fresh_parts(index))
            return self.arrival.batches(opened(batches_of(data_loader, self._timeout), slots), shapes)

        return from_step

    def slots(self) -> Slots | None:
        """Shared memory for what the workers prepare."""
        if not self._workers:
            return None
        sampler = self._sampler
        batches = [(sampler.image_side(stage), sampler.batch_rows(stage)) for stage in sampler.plan.stages]
        most = max(self._chunk_size.bytes(side) for side, _ in batches)
        return Slots(self._workers, self._chunk_size.ahead(self._workers, batches), most)

    def data_loader(self, slots: Slots | None) -> DataLoader[Any]:
        """Torch's loader of chunks of batches, which workers put into shared memory."""
        options: dict[str, Any] = {"batch_sampler": self._sampler}
        if slots is not None:
            chunks = Chunks(self._sampler, self._sampler.image_side, self._chunk_size)
            options = {"batch_sampler": chunks, "prefetch_factor": slots.ahead}
        requested = self.requested
        return loader_of(
            Requested(requested.source, requested.transform, requested.together, slots),
            **options,
            collate_fn=_as_is,
            num_workers=self._workers,
            worker_init_fn=start_in_background if self._share_cores else start_worker,
            persistent_workers=self._stay and self._workers > 0,
            # Without a generator of its own the loader would draw a seed from the global one and change the run.
            generator=torch.Generator().manual_seed(0),
        )


def _as_is(batch: Any) -> Any:
    return batch

"""A data module for Lightning: a plan's batches, of which every device takes its share, and validation images."""

from collections.abc import Iterator
from typing import Any

import torch

from upchirp.curriculum import Plan, Step
from upchirp.data import Augmentation, Batch, BatchTransform, Loader, as_source, normalize, scale_of
from upchirp.data.label_sets import one_label_each
from upchirp.errors import InputError
from upchirp.lightning.library import LIGHTNING
from upchirp.training.evaluation.images import EvalBatch, EvaluationSet
from upchirp.training.parallel.ranks import Ranks

_DataModule: Any = LIGHTNING.LightningDataModule


class CurriculumData(_DataModule):
    """The batches of a plan, of which every device takes its share, and validation images at the final size.

    All passes over the data are one epoch for Lightning (`max_epochs=1`), as their steps are the plan's;
    `val_check_interval` says how often to validate in it. With `accumulate_grad_batches=N` a step of the plan comes in
    N parts.

    Args:
        train: a `Source`, or what else `upchirp.Loader` takes.
        val: the same for validation; none validates by the module's own loader, if it has one.
        plan: what to train on; `plan.total_steps` is how many optimizer steps there are.
        classes: how many; by default those of `train`.
        augmentation: as for `Loader`.
        seed: of data, augmentation, dropout and drop path.
        workers: loader processes, by default one for each core, 16 at most.
        val_batch_size: validation images in one forward pass on each device.
        loader: whatever else `upchirp.Loader` takes, such as `low_frequency` or `prepare`.

    Raises:
        InputError: selection, which needs a loop of one's own.
    """

    def __init__(
        self,
        train: Any,
        val: Any,
        plan: Plan,
        *,
        classes: int | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        workers: int | None = None,
        val_batch_size: int = 256,
        **loader: Any,
    ) -> None:
        super().__init__()
        if loader.get("select") is not None:
            raise InputError("selection needs the loss of each image, which Lightning does not hand out: leave it out")
        self.train = one_label_each(as_source(train), "this data module")
        self.val, self.plan = None if val is None else as_source(val), plan
        self.classes = len(self.train.classes) if classes is None else classes
        self.augmentation = augmentation or Augmentation()
        self.seed, self.workers, self.val_batch_size, self._options = seed, workers, val_batch_size, loader
        self._transform: BatchTransform | None = None
        self.step: Step | None = None
        """The step of the batch that came last."""
        self.begins_step = False
        """Whether it holds the first rows of this device's share of the step."""

    def train_dataloader(self) -> "_Steps":
        """The loader of this device's share."""
        parts = self.trainer.accumulate_grad_batches
        ranks = self.trainer.world_size
        micro_batches = {}
        for stage in self.plan.stages:
            if stage.batch_size % (ranks * parts):
                raise InputError(
                    f"batch size {stage.batch_size} cannot be shared by {ranks} devices in {parts} parts "
                    "(`accumulate_grad_batches`): plan with a multiple"
                )
            micro_batches[stage.bandwidth] = stage.batch_size // (ranks * parts)
        loader = Loader(
            self.train,
            self.plan,
            augmentation=self.augmentation,
            seed=self.seed,
            workers=self.workers,
            micro_batch=micro_batches,
            rank=self.trainer.global_rank,
            world_size=ranks,
            device=self.trainer.strategy.root_device,
            **self._options,
        )
        self._transform = loader.transform
        return _Steps(loader, self.plan.total_steps * parts)

    def val_dataloader(self) -> Any:
        """This device's share of the validation images."""
        if self.val is None:
            return []
        ranks = Ranks(self.trainer.global_rank, self.trainer.world_size)
        return _Images(
            EvaluationSet(
                self.val,
                self.plan.final_size,
                self.augmentation,
                workers=self.workers,
                batch_size=even_batch(len(self.val), ranks.size, self.val_batch_size),
                ranks=ranks,
            )
        )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Images (N, 3, B, B), normalised, erased and mixed, with the shares of the classes, (N, classes).

        In validation with labels, (N,).
        """
        if isinstance(batch, _Carried):
            assert self._transform is not None
            self.step, self.begins_step = batch.batch.step, batch.begins_step
            images, targets = batch.batch.prepare(self._transform, device)
            return self.trainer.precision_plugin.convert_input((images, targets.dense(self.classes)))
        if isinstance(batch, EvalBatch):
            mean, std = self.augmentation.mean, self.augmentation.std
            images = normalize(batch.images.to(device), mean, std, scale_of(batch.images))
            return self.trainer.precision_plugin.convert_input((images, batch.labels.to(device)))
        return super().transfer_batch_to_device(batch, device, dataloader_idx)


def even_batch(images: int, ranks: int, most: int) -> int:
    """The largest batch of at most `most` by which all ranks have the same number of batches, as DDP wants it.

    Ranks have the same number of images, or one fewer.

    >>> even_batch(17, 2, 8), even_batch(16, 2, 8)
    (7, 8)
    """
    if images % ranks == 0:
        return most
    return next((batch for batch in range(most, 1, -1) if (images // ranks) % batch), most)


class _Carried:
    """A batch on its way, which Lightning takes for none of its collections."""

    def __init__(self, batch: Batch, begins_step: bool) -> None:
        self.batch, self.begins_step = batch, begins_step


class _Steps:
    """A loader as long as the whole plan wherever it begins: Lightning counts the batches before a resume, too."""

    def __init__(self, loader: Loader, batches: int) -> None:
        self._loader, self._batches = loader, batches
        self.state_dict, self.load_state_dict = loader.state_dict, loader.load_state_dict

    def __iter__(self) -> Iterator[_Carried]:
        share = self._loader.sampler.share
        for batch in self._loader:
            yield _Carried(batch, begins_step=batch.rows.start == share(batch.step.batch_size).start)

    def __len__(self) -> int:
        return self._batches


class _Images:
    """Validation images with how many batches they are."""

    def __init__(self, images: EvaluationSet) -> None:
        self._images = images

    def __iter__(self) -> Iterator[EvalBatch]:
        return iter(self._images)

    def __len__(self) -> int:
        return self._images.batches

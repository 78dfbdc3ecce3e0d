"""A `Trainer` of Hugging Face's that follows a plan."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LRScheduler

from upchirp.curriculum import Plan
from upchirp.data import Augmentation, Loader, as_source
from upchirp.data.label_sets import one_label_each
from upchirp.errors import InputError, reason_of
from upchirp.hf.adapted import Batches, Images, Rates, as_classifier, interpolates, top1
from upchirp.hf.library import TRANSFORMERS
from upchirp.models import check_sizes, fit_to_tried, lent_at_size
from upchirp.randomness import step_seed

_Trainer: Any = TRANSFORMERS.Trainer
_Callback: Any = TRANSFORMERS.TrainerCallback
_STATE = "trainer_state.json"


class CurriculumTrainer(_Trainer):
    """A `Trainer` whose batches, learning rates and input side are those of a plan.

    Steps, batch size and learning rates are the plan's: `max_steps` (unless it is given), `per_device_train_batch_size`
    and `learning_rate` of the arguments follow from it, and a step comes in `gradient_accumulation_steps` parts.
    Batches are fetched before a step begins, and the model is fitted to their side when it does. Evaluations are at the
    final size, after which the model is as before, bit by bit. `resume_from_checkpoint` goes on at any step, exactly:
    dropout is seeded by the step, and no batch is read only to be skipped.

    Args:
        model: takes `pixel_values`, and gives `logits`.
        args: Hugging Face's arguments; `seed` and `dataloader_num_workers` are for the plan's loader, too.
        plan: what to train on.
        train_dataset: a `Source`, or what else `upchirp.Loader` takes; it is augmented here.
        eval_dataset: the same for evaluations.
        augmentation: as for `Loader`.
        loader: whatever else `upchirp.Loader` takes, such as `low_frequency` or `prepare`.
        trainer: whatever else `transformers.Trainer` takes. `compute_metrics` is top-1 by default, and the loss cross
            entropy against the shares of the classes.

    Raises:
        InputError: a size that the model does not take, selection, or a batch that does not divide.
    """

    def __init__(
        self,
        model: nn.Module,
        args: Any,
        *,
        plan: Plan,
        train_dataset: Any,
        eval_dataset: Any = None,
        augmentation: Augmentation | None = None,
        loader: dict[str, Any] | None = None,
        **trainer: Any,
    ) -> None:
        self._options = loader or {}
        if self._options.get("select") is not None:
            raise InputError("selection needs the loss of each image, which Trainer does not hand out: leave it out")
        # Before Accelerate changes how the model is called, which a copy would not know.
        check_sizes(as_classifier(model), plan.sizes)
        self.plan, self.augmentation = plan, augmentation or Augmentation()
        self._source = one_label_each(as_source(train_dataset), "this trainer")
        parts = args.world_size * args.gradient_accumulation_steps
        for stage in plan.stages:
            if stage.batch_size % parts:
                raise InputError(
                    f"batch size {stage.batch_size} cannot be shared by {args.world_size} processes in "
                    f"{args.gradient_accumulation_steps} parts (`gradient_accumulation_steps`): plan with a multiple"
                )
        self._micro_batches = {stage.bandwidth: stage.batch_size // parts for stage in plan.stages}
        args.per_device_train_batch_size = self._micro_batches[plan.stages[-1].bandwidth]
        args.learning_rate = max(stage.learning_rate for stage in plan.stages)
        if args.max_steps < 0:
            args.max_steps = plan.total_steps
        # The loader begins where training does.
        args.ignore_data_skip = True
        self._start = 0
        self._bandwidth: int | None = None
        self._rewrapped: nn.Module | None = None
        self._interpolates = interpolates(model)
        if eval_dataset is not None:
            eval_dataset = Images(as_source(eval_dataset), plan.final_size, self.augmentation)
        trainer.setdefault("compute_metrics", top1)
        super().__init__(model=model, args=args, eval_dataset=eval_dataset, **trainer)
        # The mean over a part is taken here; Trainer divides it by the number of parts.
        self.model_accepts_loss_kwargs = False
        self.add_callback(_Follow(self))

    def get_train_dataloader(self) -> Any:
        """This process's share of the plan's batches, from the step on that training begins at."""
        loader = Loader(
            self._source,
            self.plan,
            augmentation=self.augmentation,
            seed=self.args.seed,
            workers=self.args.dataloader_num_workers,
            start_step=self._start,
            micro_batch=self._micro_batches,
            rank=self.args.process_index,
            world_size=self.args.world_size,
            device=self.args.device,
            **self._options,
        )
        batches = self.plan.total_steps * self.args.gradient_accumulation_steps
        return Batches(loader, batches, len(self._source.classes), self.args.device)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LRScheduler:
        """The plan's learning rates."""
        optimizer = self.optimizer if optimizer is None else optimizer
        rates = Rates(getattr(optimizer, "optimizer", optimizer), self.plan)
        self.lr_scheduler, self._created_lr_scheduler = rates, True
        return rates

    def train(self, resume_from_checkpoint: Any = None, **options: Any) -> Any:
        """Train, or go on from a checkpoint: a folder, or the last one for `True`."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = TRANSFORMERS.trainer_utils.get_last_checkpoint(self.args.output_dir)
        self._start = 0
        if resume_from_checkpoint:
            self._start = self._fit_to_checkpoint(resume_from_checkpoint)
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)

    def training_step(self, model: nn.Module, *given: Any, **options: Any) -> Tensor:
        """One part of a step, in whatever the model is wrapped in now."""
        loss: Tensor = super().training_step(self._rewrapped or model, *given, **options)
        return loss

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Any:
        """Cross entropy against labels, (N,), or the shares of the classes, (N, classes)."""
        if self._interpolates:
            inputs = {**inputs, "interpolate_pos_encoding": True}
        if self.compute_loss_func is not None or "labels" not in inputs:
            return super().compute_loss(model, inputs, return_outputs=return_outputs)
        labels = inputs["labels"]
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        loss = cross_entropy(outputs.logits.float(), labels)
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *given: Any, **options: Any) -> dict[str, float]:
        """Evaluate at the final size."""
        final, back = self.plan.final_size, self._bandwidth
        if back is None:
            self._fit(final, None)
        with nullcontext(False) if back is None else lent_at_size([self.model], final, back, tried=True) as resized:
            metrics: dict[str, float] = super().evaluate(*given, **options)
        if resized:
            self._wrap_anew()
        return metrics

    def follow(self, step: int) -> None:
        """Bring the model to a step of the plan, before it is shown the step's batches."""
        self._bandwidth = bandwidth = self.plan.step(step).bandwidth
        if self._fit(bandwidth, getattr(self.optimizer, "optimizer", self.optimizer)):
            self._wrap_anew()
        torch.manual_seed(step_seed(self.args.seed, step, self.args.process_index))

    def _fit(self, size: int, optimizer: torch.optim.Optimizer | None) -> bool:
        return fit_to_tried(self.model, size, optimizer)

    def _wrap_anew(self) -> None:
        """Let DDP, if there is one, see parameters that were resized."""
        if isinstance(self.model_wrapped, nn.parallel.DistributedDataParallel):
            old = self._rewrapped or self.model_wrapped
            self._rewrapped = nn.parallel.DistributedDataParallel(
                self.model,
                device_ids=old.device_ids or None,
                find_unused_parameters=self.model_wrapped.find_unused_parameters,
            )

    def _fit_to_checkpoint(self, folder: Any) -> int:
        """Let the model take the shapes that a checkpoint holds; returns after how many steps it was saved."""
        path = Path(folder) / _STATE
        try:
            done = int(json.loads(path.read_text(encoding="utf-8"))["global_step"])
        except (OSError, ValueError, LookupError) as error:
            raise InputError(
                f"cannot read {path} ({reason_of(error, path)}): go on from a folder that Trainer saved"
            ) from error
        if done > 0:
            self._bandwidth = bandwidth = self.plan.step(done - 1).bandwidth
            self._fit(bandwidth, None)
        return done

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._loading = resume_from_checkpoint
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        self._loading = self.state.best_model_checkpoint
        # It may be of a step with another bandwidth.
        self._fit_to_checkpoint(self._loading)
        super()._load_best_model()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        if not load_result.missing_keys:
            return
        # Models may be saved under the names of earlier versions, which Trainer does not translate, but only warns of.
        kind: Any = type(self.model)
        loaded, told = kind.from_pretrained(self._loading, config=self.model.config, output_loading_info=True)
        if told["missing_keys"]:
            raise InputError(f"{self._loading} lacks weights of the model, such as {min(told['missing_keys'])}")
        self.model.load_state_dict(loaded.state_dict())


class _Follow(_Callback):
    """Batches of a step are fetched by now, and nothing of it is computed yet."""

    def __init__(self, trainer: CurriculumTrainer) -> None:
        self._trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.follow(state.global_step)

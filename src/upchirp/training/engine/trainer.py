"""The engine: from a training state at one step of a plan to the state at a later one.

Training, resuming, searching and measuring the machine are chains of `Trainer.run`.
"""

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from upchirp.curriculum import Plan, Selection
from upchirp.data import Augmentation, Batch, BatchTransform, Corrupt, Loader, Source, Transform
from upchirp.training.engine.graphs import GraphPerShape
from upchirp.training.engine.memory import MicroBatches, forget_activations
from upchirp.training.engine.step import Computing, Record, StepResult, Steps
from upchirp.training.engine.step_batches import Arriving, StepBatches
from upchirp.training.engine.task import Classification, Task
from upchirp.training.parallel.parallel import Parallel
from upchirp.training.parallel.state import State
from upchirp.training.parallel.whole import Alone
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.group import group_of
from upchirp.training.recipes.optimizer import create_ema, create_optimizer
from upchirp.training.recipes.precision import autocast_dtype
from upchirp.training.recipes.recipe import Optimization
from upchirp.training.recipes.run_groups import Computation, Loading


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What stays the same for as long as a process trains; whatever trains, trains by `run`.

    >>> from upchirp import constant, plan
    >>> from upchirp.data import GeneratedSource
    >>> source = GeneratedSource("train", size=32, num_images=8, num_classes=2)
    >>> trainer = Trainer(loading=Loading(workers=0))
    >>> state = trainer.state(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)), bandwidth=16, learning_rate=0.1)
    >>> steps = plan(constant(16), epochs=3, dataset_size=8, batch_size=8)
    >>> [result.step.index for result in trainer.run(state, steps, source, until=2)], state.step
    ([0, 1], 2)
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where the model is."""
    optimization: Optimization = field(default_factory=Optimization)
    """Optimizer, regularisation, precision."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """What is done to images."""
    loading: Loading = field(default_factory=Loading)
    """How they are loaded."""
    computation: Computation = field(default_factory=Computation)
    """How the device computes."""
    parallel: Parallel = field(default_factory=Alone)
    """How the ranks hold what is trained."""
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    """Transforms of batches by the names that curricula give them; what is a module learns with the model."""
    task: Task = field(default_factory=Classification)
    """What the model is asked; by default the labels."""

    @classmethod
    def of(
        cls,
        config: TrainConfig,
        device: torch.device,
        parallel: Parallel | None = None,
        task: Task | None = None,
        transforms: Mapping[str, Transform] | None = None,
    ) -> "Trainer":
        """The trainer that a configuration asks for; by default of this process alone, for the labels."""
        return cls(
            device=device,
            optimization=config.optimization,
            augmentation=config.augmentation,
            loading=group_of(Loading, config),
            computation=group_of(Computation, config),
            parallel=parallel or Alone(),
            task=task or Classification(),
            transforms=transforms or {},
        )

    @property
    def transform(self) -> BatchTransform:
        """What the device does with a batch."""
        return BatchTransform(
            self.augmentation,
            seed=self.loading.seed,
            low_frequency=self.loading.low_frequency,
            channels_last=self.computation.channels_last,
            own=self.transforms,
        )

    @property
    def autocast(self) -> torch.dtype | None:
        """The number format of mixed precision, if it is on."""
        return autocast_dtype(self.optimization, self.device)

    @property
    def computing(self) -> Computing:
        """How a step computes."""
        return Computing(
            device=self.device, transform=self.transform, seed=self.loading.seed, task=self.task, autocast=self.autocast
        )

    def place(self, model: nn.Module) -> nn.Module:
        """The model on the device, with the first rank's values on every rank.

        Raises:
            InputError: its activations are to be computed anew, and it does not know how.
        """
        if self.computation.grad_checkpointing:
            forget_activations(model)
        return self.parallel.place(model, self.device, channels_last=self.computation.channels_last)

    def state(
        self,
        model: nn.Module,
        *,
        bandwidth: int,
        learning_rate: float,
        bandwidths: Collection[int] = (),
        plan: Plan | None = None,
    ) -> State:
        """A fresh state around a model that is on the device.

        Args:
            model: what is trained.
            bandwidth: the side that it takes now.
            learning_rate: the highest.
            bandwidths: all sides that it is to take; only ranks that share a model out need to know them.
            plan: the run, to which an average of the weights is fitted.
        """
        parallel, optimization = self.parallel, self.optimization
        ema = create_ema(model, optimization, plan=plan, fused=parallel.fused)
        parallel.share_out([model] if ema is None else [model, ema.module], bandwidths, self.device)
        optimizer = create_optimizer(model, optimization, learning_rate=learning_rate, fused=parallel.fused)
        learned = self._learned()
        if parameters := [parameter for parameter in learned.parameters() if parameter.requires_grad]:
            optimizer.add_param_group({"params": parameters, "weight_decay": 0.0})
        parallel.arrange(optimizer)
        return State(
            model=model,
            optimizer=optimizer,
            ema=ema,
            scaler=torch.amp.GradScaler(self.device.type, enabled=self.autocast == torch.float16),
            bandwidth=bandwidth,
            parallel=parallel,
            transforms=learned,
        )

    def probe_state(self, model: nn.Module, *, bandwidth: int) -> State:
        """A fresh state around a copy of a model, for steps that only show what training takes."""
        return self.on_copies().state(copy.deepcopy(model), bandwidth=bandwidth, learning_rate=PROBE_RATE)

    def on_copies(self) -> "Trainer":
        """The same with copies of what learns beside a model, for steps that only show what training takes."""
        return replace(self, transforms=copy.deepcopy(dict(self.transforms)))

    def _learned(self) -> nn.ModuleDict:
        """The transforms that are modules, on the device, with the first rank's values on every rank."""
        modules = {name: each for name, each in self.transforms.items() if isinstance(each, nn.Module)}
        learned = nn.ModuleDict(modules).to(self.device).train()
        self.parallel.ranks.copy_first(learned.state_dict().values())
        return learned

    def loader(
        self,
        source: Source,
        plan: Plan,
        *,
        start_step: int = 0,
        micro_batch: int | Mapping[int, int] | None = None,
        select: Selection | None = None,
    ) -> Loader:
        """This rank's batches of a plan from a step on."""
        ranks = self.parallel.ranks
        return Loader(
            source,
            plan,
            augmentation=self.augmentation,
            mode=self.loading.mode,
            low_frequency=self.loading.low_frequency,
            seed=self.loading.seed,
            workers=self.loading.processes,
            start_step=start_step,
            micro_batch=micro_batch,
            rank=ranks.rank,
            world_size=ranks.size,
            device=self.device,
            prepare=self.loading.way,
            share_cores=self.device.type == "cpu",
            select=select,
            merge=ranks.latest if ranks.size > 1 else None,
            timeout=self.loading.loader_timeout,
            # The run counts them, over all ranks.
            on_corrupt=_left_to_the_run,
        )

    def run(
        self,
        state: State,
        plan: Plan,
        data: Source | Iterable[Batch],
        *,
        until: int | None = None,
        micro_batches: MicroBatches | None = None,
        record: Record | None = None,
    ) -> Iterator[StepResult]:
        """Train `state` along a plan from where it is, one optimizer step for each result.

        Nothing is decided here: bandwidth, batch size and learning rate come with the batches, randomness from
        (seed, step, rank). Stop iterating to end the segment; the state is whole after every result, and the same on
        all ranks.

        A step whose gradients do not fit in memory is redone from its start with half the micro-batch, so it ends as if
        it had begun with that one; `micro_batches` keeps it for the steps that follow. A rank does so by itself: the
        others wait for its gradients.

        Args:
            state: trained in place.
            plan: what to execute.
            data: images to load, or the plan's batches from the state's step on, such as a `Loader` that is to be asked
                for more than batches.
            until: steps done when the segment ends; by default where the plan or the batches end. The loader is asked
                for no batch after it.
            micro_batches: how many images are computed at once; by default as many as the loader gives.
            record: sees all losses of this rank's rows; by default a loader's own.

        Raises:
            OutOfMemory: the smallest micro-batch does not fit, and the state is that of before the step; or memory ran
                out while gradients were summed over ranks, which no rank can undo alone.
        """
        batches = self.loader(data, plan, start_step=state.step) if isinstance(data, Source) else data
        if record is None:
            record = batches.record if isinstance(batches, Loader) else Batch.weigh
        compiled = GraphPerShape(state.model) if self.computation.compile else None
        passes = state.parallel.passes(state.model, compiled)
        # A probe has copies of what learns beside the model.
        computing = replace(self, transforms={**self.transforms, **state.transforms}).computing
        steps = Steps(state, passes, computing, self.optimization, record, micro_batches or MicroBatches())
        arriving = Arriving(batches, self.device)
        while until is None or state.step < until:
            of_step = StepBatches.next(arriving)
            if of_step is None or (result := steps.take(of_step)) is None:
                return
            yield result

    def alone(self) -> "Trainer":
        """The same on this process alone."""
        return replace(self, parallel=Alone())


PROBE_RATE = 1e-6
"""Learning rate of steps that only show what training takes."""


def _left_to_the_run(images: Sequence[Corrupt]) -> None:
    """The batches hold them."""

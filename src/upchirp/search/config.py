"""The settings of a search: what to search, how, and the training that the curriculum is for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from upchirp.curriculum import Axis
from upchirp.curriculum.scaling import nearest_multiple
from upchirp.errors import InputError
from upchirp.search.objectives import ObjectiveName, objective
from upchirp.search.sequential import check_search
from upchirp.training import TrainConfig
from upchirp.training.recipes.around_training import AroundTraining
from upchirp.training.recipes.checks import check_least

Algorithm = Literal["sequential", "greedy"]
BaselineMagnitude = Literal["full", "ramp"]
ExecutorName = Literal["local", "ray", "slurm"]

# Bandwidths 96, 160, 192 and 224 of Tables 5 and 6 as shares of 224.
_SHARES = (3 / 7, 5 / 7, 6 / 7, 1.0)


@dataclass(frozen=True, kw_only=True)
class SearchConfig(AroundTraining):
    """What to search, how, and the training that the curriculum is for."""

    # Stages of the same compute, one answer for a seed.
    DEFAULTS: ClassVar[Mapping[str, Any]] = {"cost": "flops", "deterministic": True}

    training: TrainConfig = field(default_factory=TrainConfig)
    """The training that the curriculum is for; `epochs` is its budget T."""
    algorithm: Algorithm = "sequential"
    """`sequential` is Algorithm 2; `greedy` is Algorithm 1, which trains whole runs."""
    stages: int = 5
    """Stages N of equal compute (Algorithm 2) or equal passes; the last has the final size."""
    candidates: tuple[int, ...] = ()
    """Bandwidths to choose from, pixels; by default 3/7, 5/7, 6/7 of the final size and itself (Tables 5 and 6)."""
    beta: float = 2 / 3
    """Budget T as a share of the baseline's T_0."""
    baseline_epochs: float | None = None
    """Budget T_0 of training as usual, from which T = beta T_0 follows; by default T is `epochs` and T_0 follows."""
    tuning_epochs: float | None = None
    """Equivalent epochs T_ft of fine-tuning before a candidate is scored; by default T / 20."""
    objective: ObjectiveName = "accuracy"
    """What the best candidate has (Table 21): the highest accuracy, or the least (1 - accuracy) x time^alpha or
    training loss x time^alpha, where stages have equal iterations."""
    alpha: float = 0.5
    """Exponent of time in the objectives that have it."""
    halving: bool = False
    """Stop hopeless candidates early: successive halving."""
    baseline_accuracy: float | None = None
    """Algorithm 1: accuracy a_0 to keep, percent on the held-out images; by default the baseline is trained."""
    baseline_magnitude: BaselineMagnitude = "full"
    """Algorithm 1: RandAugment of the training that gives a_0: `full` throughout, as training as usual has it, or the
    `ramp` of the candidates, which alone raises accuracy (Table 4), so that less is found."""
    tolerance: float = 0.0
    """Algorithm 1: points of accuracy that may be lost."""
    search_val: float = 0.1
    """Share of the training images that candidates are scored on and not trained on; the validation set is not used."""
    subset: float = 1.0
    """Share of the other training images to search on."""
    candidates_at_once: int = 1
    """Candidates that are trained at the same time."""
    engine: ExecutorName = "local"
    """What runs them: processes of this machine, a Ray cluster (`upchirp[ray]`), or SLURM (`upchirp[slurm]`)."""
    threads: int = 1
    """CPU threads of one candidate that trains on the CPU; sums depend on it, so it follows no other setting."""

    def __post_init__(self) -> None:
        check_least(self, 1, "candidates_at_once", "threads")
        if not 0 < self.beta <= 1:
            raise InputError(f"`beta` is {self.beta}: it is a share of the baseline's budget, above 0 and up to 1")
        for name in ("baseline_epochs", "tuning_epochs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"`{name}` is {value}: it must be a positive number")
        if not 0 < self.search_val < 1:
            raise InputError(f"`search_val` is {self.search_val}: it is a share of the training images, from 0 to 1")
        if not 0 < self.subset <= 1:
            raise InputError(f"`subset` is {self.subset}: it is a share of the training images, above 0 and up to 1")
        if not 0 <= self.tolerance < 100:
            raise InputError(f"`tolerance` is {self.tolerance}: it is a number of points of accuracy, from 0 to 100")
        check_search(self.stages, self.candidates or (1,), self.training.final_size)
        objective(self.objective, self.alpha)  # checks both
        self._check_algorithm()
        self._check_training()
        if self.algorithm == "sequential" and self.tuning > self.epochs / self.stages:
            raise InputError(
                f"`tuning_epochs` is {self.tuning:g}: learning rates go on for as long as a stage after the last that "
                f"is searched: at most {self.epochs / self.stages:g} of {self.epochs:g} epochs in {self.stages} stages"
            )

    def _check_algorithm(self) -> None:
        if self.algorithm == "sequential":
            if self.baseline_accuracy is not None or self.tolerance or self.baseline_magnitude != "full":
                raise InputError(
                    "`baseline_accuracy`, `baseline_magnitude` and `tolerance` belong to `algorithm='greedy'`: "
                    "leave them out"
                )
            return
        if self.halving or self.tuning_epochs is not None or self.objective != "accuracy":
            raise InputError(
                "Algorithm 1 trains whole runs and keeps their accuracy: leave out `halving`, `tuning_epochs` and "
                "`objective`, or choose `algorithm='sequential'`"
            )
        if self.baseline_epochs is not None:
            raise InputError("Algorithm 1 gives its baseline `epochs` like all others: leave out `baseline_epochs`")
        if self.baseline_accuracy is not None and not 1 < self.baseline_accuracy <= 100:
            raise InputError(f"`baseline_accuracy` is {self.baseline_accuracy}: give percent, above 1 and up to 100")
        if self.candidates_at_once > 1:
            raise InputError("each training of Algorithm 1 depends on the one before: leave out `candidates_at_once`")

    def _check_training(self) -> None:
        training = self.training
        if training.resume not in (None, "auto"):
            raise InputError("a search goes on by `resume='auto'`: it has no single checkpoint")
        if training.time_budget is not None:
            raise InputError("a search shares out epochs: give `epochs` instead of `time_budget`")
        if training.weights is not None or training.facts.from_weights:
            raise InputError(
                "a search begins with random weights, as Algorithm 2 does: leave out `weights`, `regime` and a tag "
                "in `model`"
            )
        if self.candidates_at_once > 1 and ":" in (training.device or ""):
            raise InputError("candidates that train at once share out the devices: give `device='cuda'`")
        if training.parallel != "ddp":
            raise InputError("a candidate trains in one process: leave out `parallel='fsdp'`")
        if training.micro_batch == "auto":
            raise InputError("a search must not depend on the device's memory: give `micro_batch` a number")
        if training.select is not None:
            raise InputError("a search shows every candidate whole passes: leave out `select`")
        if isinstance(training.early_batch, tuple):
            raise InputError("candidates have bandwidths of their own: give `early_batch='auto'`, or leave it out")
        if training.replay == "auto":
            raise InputError("`replay='auto'` depends on the machine's speed, and a search must not: give a number")

    @property
    def epochs(self) -> float:
        """T: the length of a whole training, in passes over what the search trains on."""
        if self.baseline_epochs is not None:
            return self.beta * self.baseline_epochs
        return self.training.epochs

    @property
    def baseline(self) -> float:
        """T_0: the length of the baseline's training; Algorithm 1's baseline has as many passes as all others."""
        return self.epochs if self.algorithm == "greedy" else self.epochs / self.beta

    @property
    def tuning(self) -> float:
        """T_ft: equivalent epochs of fine-tuning; none in Algorithm 1."""
        if self.algorithm == "greedy":
            return 0.0
        return self.epochs / 20 if self.tuning_epochs is None else self.tuning_epochs

    @property
    def axis(self) -> Axis:
        """What all stages have the same share of: passes in Algorithm 1 and with a time in the objective (Table 21)."""
        return "compute" if self.algorithm == "sequential" and self.objective == "accuracy" else "samples"

    def bandwidths(self, multiple: int) -> tuple[int, ...]:
        """The candidates in rising order; default ones are rounded to what the model takes.

        Raises:
            InputError: a single one, so that there is nothing to choose.
        """
        size = self.training.final_size
        chosen = self.candidates or [min(size, nearest_multiple(share * size, multiple)) for share in _SHARES]
        found = tuple(sorted(set(chosen)))
        # Algorithm 1 lowers stages from the final size, candidate or not.
        if len(found) == 1 and (self.algorithm == "sequential" or found[0] == size):
            raise InputError(f"{found[0]} px is the only candidate bandwidth: give two or more `candidates`")
        return found

    @classmethod
    def stored(cls, folder: Path) -> dict[str, Any]:
        """The settings in the folder of a search, by their flag names; one of before gave its baseline the ramp.

        Raises:
            InputError: unreadable, or of another job.
        """
        values = super().stored(folder)
        before = {"baseline_magnitude": "ramp"} if values.get("algorithm") == "greedy" else {}
        return {**before, **values}

    @classmethod
    def from_flat(cls, values: Mapping[str, Any], *, source: str = "config") -> Self:
        """Settings by their flag names; what is missing comes from the recipe.

        >>> SearchConfig.from_flat({"model": "resnet18", "recipe": "light", "epochs": 6, "stages": 4}).tuning
        0.3

        Raises:
            InputError: an unknown name or a value of the wrong type.
        """
        if isinstance(values.get("parallel"), int):
            # Searches of earlier versions called it so; a training's setting of that name is a word.
            values = {"candidates_at_once" if name == "parallel" else name: value for name, value in values.items()}
        return super().from_flat(values, source=source)

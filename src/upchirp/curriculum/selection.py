"""Selection: which images a pass over the data may leave out, and what that is worth before a run (Section 6.4.3)."""

from dataclasses import dataclass

from upchirp.curriculum.plans import Plan
from upchirp.errors import InputError

_EXPECTED_LOW = 0.5
"""Share of the images whose loss is taken to lie below the mean, before any is known."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Leave out images that are learned already: InfoBatch (Qin et al., ICLR 2024, arXiv 2303.04947, Section 3).

    The score s_i of an image is its last loss. A pass that begins while the progress is below `until` leaves image i
    out with probability r = `prune` if s_i lies below the mean score, and never otherwise. A low image that is kept
    has its loss multiplied by w_i = 1 / (1 - r), so that over a pass E[sum of w_i g_i over what is kept] = sum of g_i
    over the data, for gradients g_i or anything else. As in InfoBatch w is not normalised: a pass is shorter, and the
    mean gradient of its batches larger in the same proportion, so a pass moves the weights as far as a whole one.

    Budget, steps and their cost stay as they are planned: shorter passes mean more of them.

    >>> Selection().rescale
    2.0

    Raises:
        InputError: a share that is none.
    """

    prune: float = 0.5
    """Probability r with which an image below the mean loss is left out of a pass."""
    until: float = 0.875
    """Progress from which passes are whole again (InfoBatch's delta), so that the end is trained on all the data."""

    def __post_init__(self) -> None:
        if not 0 < self.prune < 1:
            raise InputError(f"selection's prune is {self.prune}: it must lie between 0 and 1, such as 0.5")
        if not 0 < self.until <= 1:
            raise InputError(f"selection's until is {self.until}: it must be a progress above 0 and at most 1")

    @property
    def rescale(self) -> float:
        """What the loss of a low image that is kept is multiplied by."""
        return 1 / (1 - self.prune)


@dataclass(frozen=True, kw_only=True)
class Savings:
    """What a selection is expected to be worth to a plan, if half of the images lie below the mean loss."""

    left_out: float
    """Share of all images that the run's passes leave out."""
    passes: float
    """Passes over the data with selection."""
    passes_without: float
    """Passes of the same steps without selection."""
    budget: float
    """Share of the budget at which a run with selection makes as many passes as the whole budget makes without."""

    def describe(self, epochs: float | None = None) -> str:
        """One line for people; `epochs` is the budget, if it was given so.

        >>> print(Savings(left_out=0.2, passes=10, passes_without=8, budget=0.8).describe(epochs=200).split("; ")[1])
        `epochs=160` would make as many passes as 200 without selection: 1.25x less
        """
        amount, whole = f"{100 * self.budget:.0f} % of the budget", "all of it"
        if epochs is not None:
            amount, whole = f"`epochs={round(epochs * self.budget, 1):g}`", f"{epochs:g}"
        return (
            f"selection is expected to leave out {100 * self.left_out:.0f} % of the images (taking half of them to lie "
            f"below the mean loss): {self.passes:.1f} passes over the data instead of {self.passes_without:.1f}; "
            f"{amount} would make as many passes as {whole} without selection: {1 / self.budget:.2f}x less"
        )


def expected_savings(plan: Plan, selection: Selection) -> Savings:
    """What selection is expected to be worth to a plan.

    With N images, F fresh ones in the run, G of them before `until` and k = 1 - r / 2 the expected length of a pass,
    and as the first pass is whole, there are 1 + (G - N) / (k N) + (F - G) / N passes instead of F / N. A budget
    scales G and F alike, which gives the share of it that makes F / N passes.

    Only images newly prepared are counted: the replay buffer repeats them whatever they are.

    >>> from upchirp.curriculum import constant, plan
    >>> savings = expected_savings(plan(constant(), epochs=300), Selection())
    >>> round(savings.passes, 1), round(1 / savings.budget, 2)
    (387.2, 1.29)
    """
    size = plan.dataset_size
    whole = plan.total_fresh_samples / size
    selected = sum(stage.fresh_samples * _share_before(stage.progress, selection.until) for stage in plan.stages) / size
    if selected <= 1:
        return Savings(left_out=0.0, passes=whole, passes_without=whole, budget=1.0)
    kept = 1 - _EXPECTED_LOW * selection.prune
    passes = 1 + (selected - 1) / kept + (whole - selected)
    budget = (whole - 1 + 1 / kept) / (selected / kept + whole - selected)
    return Savings(left_out=1 - whole / passes, passes=passes, passes_without=whole, budget=budget)


def _share_before(progress: tuple[float, float], until: float) -> float:
    """Share of a stage that lies before a progress."""
    start, end = progress
    return min(1.0, max(0.0, (until - start) / (end - start)))

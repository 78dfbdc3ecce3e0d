"""Notes on a plan: what a user should know of it before it is trained."""

from torch import nn

from upchirp.curriculum import Plan
from upchirp.errors import first_line
from upchirp.models import dead_kernel_shares
from upchirp.training.recipes.config import TrainConfig
from upchirp.training.recipes.defaults import steps_note
from upchirp.training.recipes.evaluations import stop_note
from upchirp.training.recipes.optimizer_choice import kind_of
from upchirp.training.recipes.recipe import Optimization

_REACH_OF_A_HEAD = 0.1
"""About what the weights of a trained classifier differ by from the ones it starts with."""
_HIGHEST_ADVISED_RATE = 1e-3
_SMALL_KERNEL = 3
"""Side up to which a kernel trains well without the gradient of its rims."""


def plan_notes(plan: Plan, config: TrainConfig) -> list[str]:
    """What to tell of a new run's plan, by its figures alone: of its steps, its evaluations and a new head."""
    notes = [steps_note(plan), stop_note(plan, config)]
    if config.weights is not None and not config.keep_head:
        notes.append(new_head_note(plan, config.optimization))
    return [note for note in notes if note]


def new_head_note(plan: Plan, optimization: Optimization) -> str | None:
    """What to tell of a new head that the plan is too short for at its learning rate; None if there is nothing to tell.

    Adam's steps are about as long as the learning rate, whatever the gradient, so a weight moves by at most about
    the mean rate x steps, over a cosine half of the highest rate x steps.
    """
    reach = sum(stage.steps * stage.learning_rate for stage in plan.stages) * plan.schedule.mean_share
    if kind_of(optimization.opt) not in ("adam", "lamb") or reach >= _REACH_OF_A_HEAD:
        return None
    now = plan.stages[-1].learning_rate
    rate = min(_HIGHEST_ADVISED_RATE, now * _REACH_OF_A_HEAD / reach)
    # What was followed, or would change next to nothing, is no advice.
    what = f"try `lr={rate:.0e}`, or more epochs" if rate > 1.2 * now else "give more `epochs`"
    return (
        f"the new head moves by about {reach:.1g} in {plan.total_steps} steps at a rate of {now:.1g}, "
        f"which is little: {what}"
    )


def kernel_note(plan: Plan, model: nn.Module) -> str | None:
    """What to tell of large kernels that the smallest bandwidth leaves partly without gradient; None if there are none.

    Rims of 3 x 3 kernels are no cause for concern: a ResNet whose last ones see maps of one pixel at first ends above
    training as usual (`figure-08` of `benchmarks/results/evidence.json`).
    """
    smallest = plan.bandwidths[0]
    try:
        found = dead_kernel_shares(model, smallest, plan.final_size) if smallest < plan.final_size else []
    except (RuntimeError, ValueError, TypeError) as error:
        # It cannot be run backward on two random images.
        return f"could not check the kernels' gradients at {smallest} px: {first_line(error)}"
    dead = [each for each in found if max(each.kernel) > _SMALL_KERNEL]
    if not dead:
        return None
    (name, (rows, columns), share), others = dead[0], len(dead) - 1
    more = f" and parts of {others} other kernel{'s' if others > 1 else ''} get" if others else " gets"
    return (
        f"at {smallest} px {share:.0%} of the {rows} x {columns} kernel of {name}{more} no gradient: most models train "
        "well all the same, but if accuracy falls short start larger, as for ConvNeXt: "
        "`curriculum='efficienttrain_plus_plus_convnext'`"
    ).replace("%", " %")

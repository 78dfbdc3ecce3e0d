"""The objectives of a search (Table 21)."""

import math
from collections.abc import Callable
from typing import Literal, get_args

from upchirp.errors import InputError
from upchirp.search.trial import Outcome

ObjectiveName = Literal["accuracy", "error_time", "loss_time"]
Objective = Callable[[Outcome], float]
"""How good an outcome is: the highest value wins."""


def objective(name: ObjectiveName, alpha: float = 0.5) -> Objective:
    """The objective by its name (Table 21), as a value to maximise.

    - `accuracy`: Acc_i, where every stage has the same compute T_i. Algorithm 2, the paper's.
    - `error_time`: (1 - Acc_i) T_i^alpha, minimised, where every stage has the same number of iterations I_i.
    - `loss_time`: L_i T_i^alpha, minimised, with the same I_i; as AutoProg searches.

    T_i is counted in equivalent epochs; its unit changes no argmin. The paper gives no alpha, and ours is not tuned.

    >>> cheap, good = Outcome(accuracy=60.0, loss=2.0, cost=1.0), Outcome(accuracy=70.0, loss=1.5, cost=4.0)
    >>> [max((cheap, good), key=objective(name)) is good for name in ("accuracy", "error_time", "loss_time")]
    [True, False, False]

    Raises:
        InputError: an unknown name, or an alpha that is negative or not finite.
    """
    if name not in get_args(ObjectiveName):
        raise InputError(f"unknown objective {name!r}: choose one of {', '.join(get_args(ObjectiveName))}")
    if not 0 <= alpha < float("inf"):
        raise InputError(f"`alpha` is {alpha}: it must be 0 or more")
    formulas: dict[str, Objective] = {
        "accuracy": lambda outcome: outcome.accuracy,
        "error_time": lambda outcome: -(1 - outcome.accuracy / 100) * outcome.cost**alpha,
        "loss_time": lambda outcome: -outcome.loss * outcome.cost**alpha,
    }
    formula = formulas[name]
    # What diverged has no state to go on from.
    return lambda outcome: -math.inf if math.isinf(outcome.loss) else formula(outcome)

"""Where the time of a run went."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.runs import stop_after

from upchirp import TrainConfig, train
from upchirp.training import Event, Finished, Interrupted, Stepped
from upchirp.training.run.spent import Spent


def test_the_first_step_of_a_stage_is_compared_with_the_others() -> None:
    spent = Spent()
    for stage, times in enumerate([(5.0, 2.0, 1.0), (1.0, 4.0), (7.0,)]):
        for seconds in times:
            spent.step(stage=stage, seconds=seconds + 0.5, waited=0.5)
    # In the first stage 5 against 1.5; in the second the others are slower; in the third there are none.
    assert spent.seconds() == {
        "computing": 16.5, "waiting": 3.0, "changing_bandwidth": 3.5, "compiling": 0.0, "evaluating": 0.0, "saving": 0.0
    }  # fmt: skip
    # Asked on the way, it is shared out anew with what follows.
    spent.rest(0.25)
    spent.step(stage=2, seconds=1.0, waited=0.0)
    assert spent.seconds()["changing_bandwidth"] == 3.5 + 6.25
    assert spent.seconds()["computing"] == 16.5 + 0.25 + 1.0 - 6.25
    gone_on = Spent(**spent.seconds())
    gone_on.step(stage=2, seconds=9.0, waited=10.0)
    assert gone_on.seconds()["waiting"] == 12.0


def test_a_run_tells_it_all_and_goes_on_counting(config: Callable[..., TrainConfig]) -> None:
    events: list[Event] = []
    run = config(epochs=1, checkpoint_interval=2)
    with pytest.raises(Interrupted):
        train(run, observers=[stop_after(2)])
    result = train(replace(run, resume="auto"), observers=[events.append])
    (end,) = (event for event in events if isinstance(event, Finished))
    trained = [end.spent[name] for name in ("computing", "waiting", "changing_bandwidth", "compiling")]
    assert sum(trained) == pytest.approx(result.train_seconds, abs=0.01)
    assert min(end.spent[name] for name in ("computing", "waiting", "evaluating", "saving")) > 0
    # The steps of before were counted too.
    assert sum(event.seconds for event in events if isinstance(event, Stepped)) < result.train_seconds

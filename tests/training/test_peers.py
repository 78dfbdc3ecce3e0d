from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from timm.data import ScheduledBatchSampler

from upchirp import Plan, TrainConfig
from upchirp.curriculum import constant, plan
from upchirp.errors import InputError
from upchirp.training import curriculum_for
from upchirp.training.assets.examples import _shown
from upchirp.training.probing.peers import timm_progressive


def test_timms_sizes_follow_timms_own_probabilities() -> None:
    made = timm_progressive(224)
    sampler = ScheduledBatchSampler(range(5), [1] * 5, choice_schedule="progressive", schedule_epochs=20)
    ends = [0.0, *(phase.end for phase in made.phases)]
    lengths = [Fraction(end - start).limit_denominator(100) for start, end in pairwise(ends)]
    assert all((100 * length).denominator == 1 for length in lengths) and sum(lengths) == 1
    costs = torch.tensor([(side / 224) ** 2 for side in (96, 128, 160, 192, 224)], dtype=torch.float64)
    expected = sum(float(sampler.choice_weights_for_epoch(epoch) @ costs) for epoch in range(20)) / 20
    drawn = sum(
        float(length) * (phase.bandwidth / 224) ** 2 for length, phase in zip(lengths, made.phases, strict=True)
    )
    assert drawn == pytest.approx(expected, rel=0.06)
    early, late = (
        [phase.bandwidth for phase in made.phases if low < phase.end <= high] for low, high in ((0, 0.3), (0.7, 1))
    )
    assert sum(early) / len(early) < 150 < 180 < sum(late) / len(late)


def test_timms_curriculum_is_planned_in_sizes_that_the_model_takes() -> None:
    model = torch.nn.Conv2d(3, 8, 3)
    made = curriculum_for(model, "timm_progressive", 64)
    assert (made.final_size, made.bandwidths[-1]) == (64, 64) and made.bandwidths[0] < 32
    with pytest.raises(InputError, match="did you mean timm_progressive"):
        curriculum_for(model, "timm_progresive", 64)
    assert TrainConfig(curriculum="timm_progressive").curriculum == "timm_progressive"


def test_of_many_stages_a_few_are_shown() -> None:
    made: Plan = plan(timm_progressive(64), epochs=40, dataset_size=1000, batch_size=10)
    assert len(made.stages) > 30
    sides = [stage.bandwidth for stage in _shown(made)]
    assert sorted(sides) == sorted(set(sides)) == list(made.bandwidths)
    assert len(_shown(plan(constant(64), epochs=1, dataset_size=1000, batch_size=10))) == 1

"""Curricula that the code of others makes, which `upchirp.curriculum` does not import."""

from itertools import groupby

from timm.data import ScheduledBatchSampler
from torch.utils.data import SequentialSampler

from upchirp.curriculum import Curriculum, Phase
from upchirp.curriculum.scaling import check_final_size, nearest_multiple

_SHARES = (96 / 224, 128 / 224, 160 / 224, 192 / 224, 1.0)
"""Sizes to choose among, as shares of the final one; timm has no default. Those of the paper's tables, and between."""
_EPOCHS, _DRAWS = 20, 5
"""Epochs that the window moves over, and draws in each: a share of a run for each, whatever its length."""


def timm_progressive(final_size: int = 224, *, multiple: int = 1) -> Curriculum:
    """Timm's progressive input sizes (`batch_choice_schedule="progressive"`), drawn by timm's own sampler.

    A window of probability moves from the smallest size to the largest, with timm's default spread and exploration, and
    a size is drawn from it: in timm for each batch, here for each of 100 equal shares of the run, so that the same
    curriculum serves any length. Batches have one size, as timm's do by default; progress counts samples.

    >>> curriculum = timm_progressive(224)
    >>> curriculum.bandwidths, curriculum.final_size, curriculum.axis
    ((96, 128, 160, 192, 224), 224, 'samples')

    Raises:
        InputError: `final_size` or `multiple` below 1, or `final_size` not a multiple of `multiple`.
    """
    check_final_size(final_size, multiple)
    sides = sorted({min(final_size, nearest_multiple(share * final_size, multiple)) for share in _SHARES})
    if len(sides) == 1:
        sides = [*sides, *sides]
    sampler = ScheduledBatchSampler(
        SequentialSampler(range(_DRAWS)),
        batch_sizes=[1] * len(sides),
        choice_schedule="progressive",
        schedule_epochs=_EPOCHS,
    )
    drawn: list[int] = []
    for epoch in range(_EPOCHS):
        sampler.set_epoch(epoch)
        drawn += [sides[choice] for batch in sampler for _, choice in batch]
    phases, done = [], 0
    for side, same in groupby(drawn):
        done += len(list(same))
        phases.append(Phase(end=done / len(drawn), bandwidth=side))
    return Curriculum(
        name="timm_progressive", axis="samples", phases=tuple(phases), magnitude=(9.0, 9.0), test_size=final_size
    )

"""The published curricula, for any final size.

The tables give bandwidths for a final size of 224. Above it the paper's rule holds (Section 6.1.1): the first
bandwidth stays, the middle one is the mean of first and final. Below it they shrink in proportion. Every bandwidth is
rounded to the nearest multiple that the model takes, and to the lower one of two as near.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Literal

from upchirp.curriculum.arguments import as_whole
from upchirp.curriculum.curriculum import Axis, Curriculum, Phase
from upchirp.curriculum.peers import composer_progressive, train_small
from upchirp.curriculum.scaling import check_final_size, nearest_multiple
from upchirp.errors import InputError

TABLE_SIZE = 224

PresetName = Literal[
    "efficienttrain_plus_plus",
    "efficienttrain",
    "linear",
    "constant",
    "efficienttrain_plus_plus_deit",
    "efficienttrain_plus_plus_convnext",
    "composer_progressive",
    "train_small",
]


def efficienttrain_plus_plus(final_size: int = TABLE_SIZE, *, multiple: int = 1) -> Curriculum:
    """EfficientTrain++, Table 6: B = 96 for the first 20 % of the compute, 160 to 60 %, then 224.

    Args:
        final_size: input side of the last stage, pixels.
        multiple: bandwidths are rounded to a multiple of this, see `upchirp.models.size_multiple`.

    >>> efficienttrain_plus_plus().bandwidths
    (96, 160, 224)
    >>> efficienttrain_plus_plus(384, multiple=32).bandwidths
    (96, 224, 384)
    >>> efficienttrain_plus_plus(64, multiple=2).bandwidths
    (28, 46, 64)

    Raises:
        InputError: `final_size` or `multiple` below 1, or `final_size` not a multiple of `multiple`.
    """
    ranges = [(0.2, 96.0), (0.6, _middle(96, final_size)), (1.0, float(TABLE_SIZE))]
    return _scaled("efficienttrain_plus_plus", "compute", ranges, final_size, multiple)


def efficienttrain(final_size: int = TABLE_SIZE, *, multiple: int = 1) -> Curriculum:
    """EfficientTrain, Table 5: B = 160 for the first 60 % of the passes, 192 to 80 %, then 224.

    Its axis is `samples`: 300 epochs are 300 real passes and 196 equivalent epochs.

    >>> efficienttrain().at(0.7).bandwidth
    192
    """
    ranges = [(0.6, 160.0), (0.8, _middle(160, final_size)), (1.0, float(TABLE_SIZE))]
    return _scaled("efficienttrain", "samples", ranges, final_size, multiple)


def efficienttrain_plus_plus_deit(final_size: int = TABLE_SIZE, *, multiple: int = 1) -> Curriculum:
    """The released code's schedule for DeiT: 96 to 20 %, 160 to 60 %, 192 to 80 % of the compute, then 224.

    >>> efficienttrain_plus_plus_deit().bandwidths
    (96, 160, 192, 224)
    """
    check_final_size(final_size, multiple)
    late = 192.0 if final_size <= TABLE_SIZE else (160 + final_size) / 2
    ranges = [(0.2, 96.0), (0.6, _middle(96, final_size)), (0.8, late), (1.0, float(TABLE_SIZE))]
    return _scaled("efficienttrain_plus_plus_deit", "compute", ranges, final_size, multiple)


def efficienttrain_plus_plus_convnext(final_size: int = TABLE_SIZE, *, multiple: int = 1) -> Curriculum:
    """EfficientTrain++ for ConvNeXt, Appendix A.1: 96 is replaced by 160.

    At 96 the last stage's maps are 3 x 3, so the rims of its 7 x 7 kernels get no gradient.

    >>> efficienttrain_plus_plus_convnext().bandwidths
    (160, 224)
    """
    ranges = [(0.2, 160.0), (0.6, _middle(96, final_size)), (1.0, float(TABLE_SIZE))]
    return _scaled("efficienttrain_plus_plus_convnext", "compute", ranges, final_size, multiple)


def linear(final_size: int = TABLE_SIZE, *, multiple: int = 1, stages: int = 4) -> Curriculum:
    """Progressive learning: equal stages whose sizes rise linearly from 96/224 of the final size.

    The schedule of EfficientNetV2's progressive learning (reference [58] of the paper, compared with in Table 11), on
    the `samples` axis, with Table 6's first bandwidth. Stages that round to one bandwidth are merged.

    >>> [phase.bandwidth for phase in linear(224, multiple=32).phases]
    [96, 128, 192, 224]

    Raises:
        InputError: `stages` below 2, or as `efficienttrain_plus_plus`.
    """
    if stages < 2:
        raise InputError(f"linear curriculum with {stages} stages: choose 2 or more")
    check_final_size(final_size, multiple)
    first, last = 96.0, float(max(final_size, TABLE_SIZE))
    ranges = [((k + 1) / stages, first + (last - first) * k / (stages - 1)) for k in range(stages - 1)]
    return _scaled("linear", "samples", [*ranges, (1.0, float(TABLE_SIZE))], final_size, multiple)


def constant(final_size: int = TABLE_SIZE, *, multiple: int = 1) -> Curriculum:
    """Training as usual: the final size and the full magnitude throughout.

    >>> constant().at(0.0)
    Setting(bandwidth=224, magnitude=9.0, radius=None, operator=None, transform=None)
    """
    curriculum = _scaled("constant", "compute", [(1.0, float(TABLE_SIZE))], final_size, multiple)
    return Curriculum(name=curriculum.name, axis=curriculum.axis, phases=curriculum.phases, magnitude=(9.0, 9.0))


BY_OTHERS = ("timm_progressive",)
"""Names of curricula that the code of other packages makes, where a model is to be trained."""

PRESETS: dict[str, Callable[..., Curriculum]] = {
    preset.__name__: preset
    for preset in (
        efficienttrain_plus_plus,
        efficienttrain,
        linear,
        constant,
        efficienttrain_plus_plus_deit,
        efficienttrain_plus_plus_convnext,
        composer_progressive,
        train_small,
    )
}


def preset(name: str, final_size: int = TABLE_SIZE, *, multiple: int = 1) -> Curriculum:
    """The preset of that name.

    >>> preset("constant", 64).final_size
    64

    Raises:
        InputError: an unknown name, or as the preset.
    """
    if not isinstance(name, str):
        raise InputError(f"the name of the curriculum is {name!r}: give it first, then the final size")
    if name in BY_OTHERS:
        raise InputError(f"{name} is made by the code of another package: `upchirp.training.curriculum_for` makes it")
    if name not in PRESETS:
        near = difflib.get_close_matches(name, [*PRESETS, *BY_OTHERS], n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(
            f"unknown curriculum {name!r}: {hint}choose one of {', '.join([*PRESETS, *BY_OTHERS])}, or give the path "
            "of a YAML file"
        )
    return PRESETS[name](final_size, multiple=multiple)


def _middle(first: int, final_size: int) -> float:
    """The middle bandwidth in the tables' scale: (first + final) / 2, at least at the tables' own final size."""
    return (first + max(as_whole("final size", final_size), TABLE_SIZE)) / 2


def _scaled(name: str, axis: Axis, ranges: Sequence[tuple[float, float]], final_size: int, multiple: int) -> Curriculum:
    check_final_size(final_size, multiple)
    shrink = min(1.0, final_size / TABLE_SIZE)
    phases: list[Phase] = []
    for end, bandwidth in ranges:
        side = final_size if end == 1.0 else min(final_size, nearest_multiple(bandwidth * shrink, multiple))
        if phases and phases[-1].bandwidth == side:
            phases.pop()
        phases.append(Phase(end=end, bandwidth=side))
    return Curriculum(name=name, axis=axis, phases=tuple(phases))

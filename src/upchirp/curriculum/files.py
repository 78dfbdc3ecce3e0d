"""Curricula of one's own, from YAML files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from upchirp.curriculum.curriculum import Curriculum
from upchirp.curriculum.presets import BY_OTHERS, preset
from upchirp.curriculum.scaling import scaled
from upchirp.errors import InputError
from upchirp.files import read_yaml, write_text

_SUFFIXES = {".yaml", ".yml"}


def load_curriculum(given: str | Path | Mapping[str, Any], final_size: int = 224, *, multiple: int = 1) -> Curriculum:
    """A preset by its name, a curriculum from a YAML file, or one from what such a file holds.

    A file looks like this; `name`, `axis` (`compute`) and `magnitude` ([0, 9]) may be left out::

        name: mine
        axis: compute
        magnitude: [0, 9]
        phases:
          - {end: 0.3, bandwidth: 96}
          - {end: 1.0, bandwidth: 224}

    A phase may have its own `magnitude` (a number, or [first, last]), a low-pass filter of a `radius`, and its own
    `operator`; see `Phase`.

    A file says its bandwidths itself, so its last one must equal `final_size`, unless the file has a line
    `final_size` of its own that does: then training ends below it. With the line `scales: true`, which searches write,
    they are shares of its final size: for another one or another model they are scaled and rounded.

    >>> load_curriculum("efficienttrain_plus_plus", 224).at(0.3).bandwidth
    160
    >>> phases = [{"end": 0.5, "bandwidth": 32}, {"end": 1.0, "bandwidth": 64}]
    >>> load_curriculum({"name": "mine", "phases": phases}, 64).bandwidths
    (32, 64)

    Raises:
        InputError: an unknown name, an unreadable file, an invalid curriculum, or one whose bandwidths do not fit
            the final size or the multiple.
    """
    if isinstance(given, Mapping):
        source, data = str(given.get("name", "curriculum")), dict(given)
    elif Path(given).suffix.lower() in _SUFFIXES:
        source, data = str(given), read_yaml(Path(given), "curriculum file")
    else:
        return preset(str(given), final_size, multiple=multiple)
    scales = data.pop("scales", False) if isinstance(data, dict) else False
    if not isinstance(scales, bool):
        raise InputError(f"{source}: scales is {scales!r}: it must be true or false")
    curriculum = Curriculum.from_dict(data, source=source)
    if scales:
        return scaled(curriculum, final_size, multiple=multiple)
    if curriculum.final_size != final_size and data.get("final_size") is not None:
        raise InputError(
            f"{source} is for the final size {curriculum.final_size}, and the final size is {final_size}: change its "
            f"line `final_size`, or set the final size to {curriculum.final_size}"
        )
    if curriculum.final_size != final_size:
        raise InputError(
            f"{source} ends at bandwidth {curriculum.final_size}, but the final size is {final_size}: "
            f"make its last bandwidth {final_size}, set the final size to {curriculum.final_size}, or, to train below "
            f"the final size to the end, add the line `final_size: {final_size}`"
        )
    if wrong := [bandwidth for bandwidth in curriculum.bandwidths if bandwidth % multiple]:
        raise InputError(f"{source}: bandwidth {wrong[0]} is not a multiple of {multiple}, as the model needs")
    return curriculum


def counts_passes(given: str | Mapping[str, Any]) -> bool:
    """Whether a curriculum's budget is in passes over the data: it counts samples, or has one bandwidth throughout.

    What cannot be read does not: that is for `load_curriculum` to tell.

    >>> [counts_passes(name) for name in ("constant", "efficienttrain", "efficienttrain_plus_plus", "no.yaml")]
    [True, True, False, False]
    """
    if given in BY_OTHERS:
        return True
    try:
        if isinstance(given, str) and Path(given).suffix.lower() not in _SUFFIXES:
            curriculum = preset(given)
        else:
            data = dict(given if isinstance(given, Mapping) else read_yaml(Path(given), "curriculum file"))
            data.pop("scales", None)
            curriculum = Curriculum.from_dict(data)
    except (InputError, TypeError, ValueError):
        return False
    return curriculum.axis == "samples" or curriculum.sizes == curriculum.bandwidths[:1]


def save_curriculum(curriculum: Curriculum, path: Path, *, scales: bool = False, comment: str = "") -> None:
    """Write the curriculum as the YAML file that `load_curriculum` reads.

    Args:
        curriculum: what to write.
        path: the file.
        scales: its bandwidths are shares of the final size, for any other one to be scaled to.
        comment: lines for readers, above it.
    """
    data = {**curriculum.to_dict(), **({"scales": True} if scales else {})}
    lines = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    write_text(path, lines + yaml.safe_dump(data, sort_keys=False))

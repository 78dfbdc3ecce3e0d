"""Curricula of one's own, from YAML files."""

from pathlib import Path

import yaml

from upchirp.curriculum.curriculum import Curriculum
from upchirp.curriculum.presets import preset
from upchirp.errors import InputError


def load_curriculum(name_or_file: str | Path, final_size: int = 224, *, multiple: int = 1) -> Curriculum:
    """A preset by its name, or a curriculum from a YAML file.

    A file looks like this; `name`, `axis` (`compute`) and `magnitude` ([0, 9]) may be left out::

        name: mine
        axis: compute
        magnitude: [0, 9]
        phases:
          - {end: 0.3, bandwidth: 96}
          - {end: 1.0, bandwidth: 224}

    A file says its bandwidths itself, so its last one must equal `final_size`.

    >>> load_curriculum("efficienttrain_plus_plus", 224).at(0.3).bandwidth
    160

    Raises:
        InputError: an unknown name, an unreadable file, an invalid curriculum, or one whose bandwidths do not fit
            the final size or the multiple.
    """
    path = Path(name_or_file)
    if path.suffix.lower() not in {".yaml", ".yml"}:
        return preset(str(name_or_file), final_size, multiple=multiple)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the curriculum file {path}: {error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    curriculum = Curriculum.from_dict(data, source=str(path))
    if curriculum.final_size != final_size:
        raise InputError(
            f"{path} ends at bandwidth {curriculum.final_size}, but the final size is {final_size}: "
            f"make its last bandwidth {final_size} or set the final size to {curriculum.final_size}"
        )
    if wrong := [bandwidth for bandwidth in curriculum.bandwidths if bandwidth % multiple]:
        raise InputError(f"{path}: bandwidth {wrong[0]} is not a multiple of {multiple}, as the model needs")
    return curriculum


def save_curriculum(curriculum: Curriculum, path: Path) -> None:
    """Write the curriculum as the YAML file that `load_curriculum` reads."""
    path.write_text(yaml.safe_dump(curriculum.to_dict(), sort_keys=False), encoding="utf-8")

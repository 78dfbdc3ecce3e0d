"""A small part of the project's image archive, where it lies beside the checkout."""

import zipfile
from collections import defaultdict
from pathlib import Path, PurePosixPath

import pytest

ARCHIVE = Path(__file__).parents[3] / "shared/data/tiny-imagenet-40.zip"
CLASSES, TRAIN, VAL = 4, 60, 25


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not ARCHIVE.exists():
        pytest.skip(f"the real images are not here: {ARCHIVE.name} is not shipped with the project")
    root = tmp_path_factory.mktemp("photographs")
    with zipfile.ZipFile(ARCHIVE) as archive:
        members: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name in archive.namelist():
            parts = PurePosixPath(name).parts
            if len(parts) >= 4 and parts[-1].lower().endswith((".jpeg", ".jpg")):
                members[parts[1], parts[2]].append(name)
        classes = sorted({label for _, label in members})[:CLASSES]
        for (split, label), names in members.items():
            if label in classes:
                folder = root / split / label
                folder.mkdir(parents=True)
                for name in sorted(names)[: TRAIN if split == "train" else VAL]:
                    (folder / PurePosixPath(name).name).write_bytes(archive.read(name))
    return root

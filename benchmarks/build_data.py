"""Builds the data sets of the measurements from public ones.

    python benchmarks/build_data.py tiny-imagenet-40 --source tiny-imagenet-200.zip --output tiny-imagenet-40
    python benchmarks/build_data.py imagenette-224 --source imagenette2-320 --output imagenette-224

`tiny-imagenet-40` are 40 of the 200 classes of Tiny ImageNet (tiny_imagenet_40_classes.txt), with all of their 500
training and 50 validation images, files as they are. The script says whether every byte is what was measured on.

`imagenette-224` are the first 650 training and 150 validation images of each class of Imagenette (version 2), in the
order of their names, as 224 x 224 pixels. The script says whether the images are those of the measurements. Of their
pixels it is known that they were saved as JPEG at quality 75 with 4:2:0 chroma, as Pillow does by default, but not how
they were resized: here the shorter side goes to 224 pixels, bicubic, and the centre is cut out.
"""

import argparse
import hashlib
import zipfile
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps

CLASSES = Path(__file__).with_name("tiny_imagenet_40_classes.txt")
TINY_SHA256 = "55b3fc08b0bef31ab2adbe56c57a55cc76b64853d3cf078d3d51d35c33fb555d"
"""Of all names and files that were measured on, as `digest` counts them."""
IMAGENETTE_NAMES_SHA256 = "ece0da809b502d4235a51b2f425a8703f8305aba8329b1d93885896ef0fc929e"
"""Of the names alone."""
TRAIN_IMAGES, VAL_IMAGES, SIDE = 650, 150, 224


def main(words: Sequence[str] | None = None) -> None:
    """Build a data set and say whether it is that of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("tiny-imagenet-40", "imagenette-224"))
    parser.add_argument("--source", type=Path, required=True, help="the public data set: a folder, or Tiny's zip")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    options = parser.parse_args(words)
    if options.output.exists():
        parser.error(f"{options.output} exists already: name a new folder")
    if options.data == "tiny-imagenet-40":
        build_tiny(options.source, options.output)
        same = digest(options.output) == TINY_SHA256
        print(f"{options.output}: {'the very files' if same else 'NOT the files'} that were measured on")
    else:
        build_imagenette(options.source, options.output)
        same = digest(options.output, contents=False) == IMAGENETTE_NAMES_SHA256
        print(f"{options.output}: {'the images' if same else 'NOT the images'} that were measured on, resized here")


def build_tiny(source: Path, output: Path, classes: Path = CLASSES) -> None:
    """Take the listed classes out of `tiny-imagenet-200`, whose validation images lie in one folder with a list."""
    wanted = [line.split("\t")[0] for line in classes.read_text(encoding="utf-8").splitlines()]
    if source.is_dir():
        copy_tiny(wanted, lambda name: (source / name).read_bytes(), output)
    else:
        with zipfile.ZipFile(source) as archive:
            copy_tiny(wanted, lambda name: archive.read(f"tiny-imagenet-200/{name}"), output)
    (output / "classes.txt").write_bytes(classes.read_bytes())


def copy_tiny(wanted: Sequence[str], read: Callable[[str], bytes], output: Path) -> None:
    """Write `train/ID/*` and `val/ID/*`."""
    for name in wanted:
        # A list of the class's images, each with the box of its object.
        for line in read(f"train/{name}/{name}_boxes.txt").decode().splitlines():
            file = line.split("\t")[0]
            write(output / "train" / name / file, read(f"train/{name}/images/{file}"))
    for line in read("val/val_annotations.txt").decode().splitlines():
        file, name = line.split("\t")[:2]
        if name in wanted:
            write(output / "val" / name / file, read(f"val/images/{file}"))


def build_imagenette(source: Path, output: Path, train: int = TRAIN_IMAGES, val: int = VAL_IMAGES) -> None:
    """Take the first images of each class of `imagenette2-320`, or `imagenette2`, and resize them."""
    for split, count in (("train", train), ("val", val)):
        for folder in sorted(path for path in (source / split).iterdir() if path.is_dir()):
            for path in sorted(folder.glob("*.JPEG"))[:count]:
                with Image.open(path) as image:
                    square = ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BICUBIC)
                buffer = BytesIO()
                square.save(buffer, "JPEG")
                write(output / split / folder.name / path.name, buffer.getvalue())


def write(path: Path, data: bytes) -> None:
    """A file, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def digest(root: Path, *, contents: bool = True) -> str:
    """SHA-256 of the images' paths in `root`, sorted, and of the SHA-256 of each of them."""
    return digest_of(
        (path.relative_to(root).as_posix(), path.read_bytes() if contents else b"") for path in root.rglob("*.JPEG")
    )


def digest_of(files: Iterable[tuple[str, bytes]]) -> str:
    """The same, of paths and contents."""
    total = hashlib.sha256()
    for name, part in sorted((name, hashlib.sha256(data).hexdigest()) for name, data in files):
        total.update(f"{part} {name}\n".encode())
    return total.hexdigest()


if __name__ == "__main__":
    main()

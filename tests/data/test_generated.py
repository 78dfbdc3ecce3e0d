"""The generated data set."""

import pickle

import numpy as np
import pytest
from PIL import Image

from upchirp.data.images.decoding import JpegPicture
from upchirp.data.images.evaluation import EvalTransform
from upchirp.data.sources import GeneratedSource
from upchirp.errors import InputError


@pytest.fixture(scope="module")
def source():
    return GeneratedSource("train", num_images=400)


def pixels(source: GeneratedSource, count: int | None = None) -> np.ndarray:
    return np.stack([np.asarray(source.load(i)[0].whole()) for i in range(count or len(source))])


def test_images_are_encoded_rgb_jpegs(source):
    picture, label = source.load(21)
    assert isinstance(picture, JpegPicture)
    assert (picture.size, picture.whole().mode, label) == ((128, 128), "RGB", 1)
    assert source.classes[1] in source.describe(21)
    with pytest.raises(IndexError):
        source.load(400)


def test_an_image_depends_on_seed_split_and_index_only(source):
    few = pixels(GeneratedSource("train", num_images=20))
    np.testing.assert_array_equal(few, pixels(source, 20))
    for other in (GeneratedSource("val", num_images=20), GeneratedSource("train", num_images=20, seed=1)):
        assert all((a != b).mean() > 0.5 for a, b in zip(few, pixels(other), strict=True))
    np.testing.assert_array_equal(pixels(pickle.loads(pickle.dumps(source)), 20), few)


def test_no_image_comes_twice(source):
    assert len({image.tobytes() for image in pixels(source)}) == 400


def test_classes_are_balanced_and_named(source):
    assert len(source.classes) == len(set(source.classes)) == 20
    assert np.bincount([source.load(i)[1] for i in range(400)]).tolist() == [20] * 20
    for count in range(2, 21):
        names = GeneratedSource("val", num_images=count, num_classes=count, size=32).classes
        # From four classes on, both the shape and the texture have to be told.
        assert count < 4 or min(len({name.split("-")[part] for name in names}) for part in (0, 1)) > 1


def test_colours_do_not_give_the_class_away():
    # Least squares on mean and spread of each colour, from 1600 images: no better than chance (1/20).
    train, val = (
        GeneratedSource("train", num_images=1600, size=64),
        GeneratedSource("val", num_images=800, size=64),
    )

    drawn, asked = pixels(train), pixels(val)

    def features(images):
        images = images.reshape(len(images), -1, 3) / 255
        first = np.concatenate([images.mean(1), images.std(1), np.ones((len(images), 1))], axis=1)
        return np.concatenate([first, first**2], axis=1)

    weights = np.linalg.lstsq(features(drawn), np.eye(20)[np.arange(1600) % 20], rcond=None)[0]
    accuracy = ((features(asked) @ weights).argmax(1) == np.arange(800) % 20).mean()
    assert accuracy < 0.05 + 0.05
    # Nor do shapes or textures differ in brightness, beyond what chance does (standard errors).
    brightness = drawn.mean(axis=(1, 2, 3))
    for part in (0, 1):
        names = np.array([source_class.split("-")[part] for source_class in train.classes])[np.arange(1600) % 20]
        groups = [brightness[names == name] for name in sorted(set(names))]
        for group in groups:
            assert abs(group.mean() - brightness.mean()) < 3.5 * brightness.std() / len(group) ** 0.5


def band_share(images: np.ndarray, low: float, high: float) -> np.ndarray:
    """Mean power of grey images at frequencies from `low` to `high`, in waves per image."""
    grey = images.astype(float).mean(axis=1)
    spectrum = np.abs(np.fft.fft2(grey - grey.mean(axis=(1, 2), keepdims=True))) ** 2
    frequency = np.fft.fftfreq(grey.shape[-1], 1 / grey.shape[-1])
    radius = np.hypot(frequency[:, None], frequency)
    return spectrum[:, (radius >= low) & (radius < high)].sum(axis=1) / grey.shape[-1] ** 4


def test_textures_lie_around_the_cut_off_of_the_first_bandwidth(source):
    # As evaluation shows them at 64 pixels. A bandwidth of 28 keeps up to 14 waves per image.
    images = np.stack([EvalTransform(64, 0.875)(source.load(i)[0]) for i in range(200)])
    seen = images.transpose(0, 3, 1, 2).astype(float)
    texture = band_share(seen, 11, 22)
    assert texture.mean() > 6 * band_share(seen, 22, 33).mean()
    # Grouped by texture, the power differs above the cut-off pattern-wise but not in amount.
    by_texture = [
        texture[[source.classes[i % 20].endswith(name) for i in range(200)]].mean()
        for name in ("stripes", "checks", "honeycomb", "grain")
    ]
    assert max(by_texture) < 1.6 * min(by_texture)


def test_low_frequencies_tell_the_shape_but_little_of_the_texture(source):
    # The inside of an object, away from its outline, is rough at 64 pixels and much smoother at 28.
    rough = {28: [], 64: []}
    for index in range(0, 200):
        if not source.classes[index % 20].startswith(("disc", "square")):
            continue
        image = Image.fromarray(EvalTransform(64, 0.875)(source.load(index)[0]))
        for side in rough:
            centre = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS).convert("L"), dtype=float)
            part = centre[side * 2 // 5 : side * 3 // 5, side * 2 // 5 : side * 3 // 5]
            rough[side].append(part.std())
    assert np.median(rough[28]) < 0.75 * np.median(rough[64])


@pytest.mark.parametrize("size", [32, 128, 200])
def test_texture_scales_with_the_size(size):
    images = pixels(GeneratedSource("val", num_images=20, size=size))
    assert images.shape == (20, size, size, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"split": "test"}, "no split 'test'"),
        ({"size": 16}, "16 pixels"),
        ({"num_classes": 1}, "2 to 20 classes"),
        ({"num_classes": 21}, "2 to 20 classes"),
        ({"num_images": 5}, "5 generated images for 20 classes"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(InputError, match=words):
        GeneratedSource(**{"split": "train", **arguments})

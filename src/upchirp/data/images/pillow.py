"""Images by Pillow: opened, checked, and decoded to upright RGB, with one kind of error for all that may be wrong."""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on files that are damaged or no images."""
FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
"""By the names of settings."""
_TOO_LARGE = "more than twice PIL.Image.MAX_IMAGE_PIXELS: shrink it"


def open_image(data: bytes) -> Image.Image:
    """Read the header of an encoded image with Pillow.

    Args:
        data: the bytes of an image file, in any format that Pillow reads.

    Raises:
        OSError: the bytes are no image that can be read.

    >>> buffer = BytesIO()
    >>> Image.new("RGB", (4, 3)).save(buffer, "PNG")
    >>> open_image(buffer.getvalue()).size
    (4, 3)
    """
    if not data:
        raise OSError("the file is empty")
    try:
        with large_allowed():
            image = Image.open(BytesIO(data))
    except Image.DecompressionBombError as error:
        raise OSError(f"it is too large: {str(error).split(',')[0]}, {_TOO_LARGE}") from error
    except UnidentifiedImageError:
        # Pillow's text holds an address in memory, which would make each packing of the same data another.
        raise OSError("it is no image of a kind that Pillow reads, or its header is damaged") from None
    except (MemoryError, OSError):
        raise
    except Exception as error:
        # Pillow's plug-ins raise what their parsers raise (SyntaxError, struct.error, DecompressionBombError,
        # ...).
        raise OSError(f"cannot read the image's header: {error}") from error
    if image.format == "EPS":
        # Pillow would hand it to Ghostscript, and a picture that somebody gave us is no program to run.
        raise OSError("it is a PostScript program, not an image: convert it")
    return image


@contextmanager
def large_allowed() -> Iterator[None]:
    """No warning about images of up to twice Pillow's limit, which it prints as it comes, once a process.

    Above that it refuses an image, and so does upchirp: one rule for all formats.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def check_size(width: int, height: int) -> None:
    """Refuse a JPEG that Pillow would refuse for its size."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > 2 * limit:
        raise OSError(f"it is too large: {width} x {height} pixels, {_TOO_LARGE}")


def decode(image: Image.Image) -> Image.Image:
    """Decode all pixels of an image as RGB, and turn it upright as its EXIF orientation says.

    Of 16-bit grey values, and the 12-bit ones of TIFF files, the upper 8 bits are kept. Transparency is dropped, the
    stored colours stay, as torchvision's image folders do.

    Args:
        image: an image of any mode, decoded or not.

    Raises:
        OSError: the image is truncated or corrupt, or has grey values of a range that nobody knows: floating-point
            numbers, or the 32-bit or signed integers of TIFF files.

    >>> decode(Image.new("L", (4, 3), 7)).getpixel((0, 0))
    (7, 7, 7)
    """
    load(image)
    stored = image
    try:
        if orientation(image) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode == "RGB":
            return image
        if image.mode == "F" or image.mode.startswith("I"):
            return Image.fromarray(_upper_bits(image, stored)).convert("RGB")
        if image.mode == "P" and "transparency" in image.info:
            return image.convert("RGBA").convert("RGB")
        return image.convert("RGB")
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise OSError(f"cannot decode the image: {error}") from error


def _upper_bits(image: Image.Image, stored: Image.Image) -> npt.NDArray[np.uint8]:
    """The upper 8 bits of wide grey values; `stored` is the image as its file has it, which knows their width.

    Pillow's own conversion clips them at 255 on some versions: nearly every 16-bit image would turn white.
    """
    bits = 16
    if stored.format == "TIFF":
        bits = stored.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]  # type: ignore[attr-defined]
    grey = np.asarray(image)
    # PNG and PGM files of 16 bits come as 32-bit integers on some versions of Pillow, and so do images in memory.
    wide = image.mode == "I" and stored.format not in ("PNG", "PPM", None)
    if image.mode == "F" or wide or grey.min() < 0 or grey.max() >= 2**16:
        kind = "floating-point numbers" if image.mode == "F" else "32-bit or signed integers"
        raise OSError(f"its grey values are {kind}, of a range that is not known: convert it to 8 or 16 bits")
    return (grey >> (bits - 8)).clip(0, 255).astype(np.uint8)


def load(image: Image.Image) -> None:
    """Decode the pixels, as they are stored."""
    try:
        image.load()
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise OSError(f"cannot decode the image: {error}") from error


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 is upright."""
    # Pillow turns TIFF files by itself.
    if "exif" not in image.info or image.format == "TIFF":
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        # Damaged EXIF data raise anything; the pixels may be whole.
        return 1


def grey(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """RGB values as grey ones, (height, width, 1), as Pillow has them.

    It is the last thing that is done: grey photographs are prepared as all others are.
    """
    return np.array(Image.fromarray(pixels).convert("L"))[..., None]

"""From the bytes of an image file to RGB pixels."""

from io import BytesIO

import numpy as np
from PIL import Image


def open_image(data: bytes) -> Image.Image:
    """Read the header of an encoded image; its pixels stay encoded.

    `.size` is known afterwards, so that a crop can be drawn before anything is decoded.

    Args:
        data: the bytes of an image file, in any format that Pillow reads.

    Raises:
        OSError: the bytes are no image that can be read.

    >>> buffer = BytesIO()
    >>> Image.new("RGB", (4, 3)).save(buffer, "PNG")
    >>> open_image(buffer.getvalue()).size
    (4, 3)
    """
    try:
        return Image.open(BytesIO(data))
    except (MemoryError, OSError):
        raise
    except Exception as error:
        # Pillow's plug-ins raise what their parsers raise (SyntaxError, struct.error, DecompressionBombError,
        # ...).
        raise OSError(f"cannot read the image's header: {error}") from error


def decode(image: Image.Image) -> Image.Image:
    """Decode all pixels of an image as RGB.

    16-bit grey values keep their upper 8 bits. Transparency is dropped, the stored colours stay, as
    torchvision's image folders do.

    Args:
        image: an image of any mode, decoded or not.

    Raises:
        OSError: the image is truncated or corrupt.

    >>> decode(Image.new("L", (4, 3), 7)).getpixel((0, 0))
    (7, 7, 7)
    """
    try:
        image.load()
        if image.mode == "RGB":
            return image
        if image.mode.startswith("I"):
            # Pillow clips wide grey values at 255 on some versions: nearly every 16-bit image would turn
            # white.
            grey = np.asarray(image).astype(np.int64) >> 8
            return Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).convert("RGB")
        if image.mode == "P" and "transparency" in image.info:
            return image.convert("RGBA").convert("RGB")
        return image.convert("RGB")
    except (MemoryError, OSError):
        raise
    except Exception as error:
        raise OSError(f"cannot decode the image: {error}") from error

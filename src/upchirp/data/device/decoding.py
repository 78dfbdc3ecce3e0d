"""JPEG files decoded on the device, by TorchCodec (nvJPEG on NVIDIA's GPUs); written by its documentation.

Whole pictures at full scale: it neither decodes a part nor a coarser scale. So images differ from those of the workers,
which decode at 1/2, 1/4 or 1/8 where that is enough, by more than rounding, and are a little nearer to the originals.
"""

from collections.abc import Callable
from io import BytesIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from upchirp.data.device.resizing import slack
from upchirp.data.images.pillow import decode
from upchirp.data.images.regions import Regions
from upchirp.errors import DataFault, InputError, first_line

Decode = Callable[[list[Tensor]], list[Tensor]]
"""From the bytes of files, each uint8 (bytes,) on the host, to RGB values on the device, each uint8 (3, H, W)."""


def jpeg_decoder(device: torch.device) -> Decode:
    """The decoder of a device.

    Raises:
        InputError: the device is no GPU that decodes, or TorchCodec cannot be used.
    """
    if device.type != "cuda":
        raise InputError(f"`prepare='device-jpeg'` needs a CUDA device and this is {device.type}: try `prepare='auto'`")
    try:
        from torchcodec.decoders import decode_jpeg
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(
            f"`prepare='device-jpeg'` needs TorchCodec 0.16 or later and torch 2.11 or later ({first_line(error)}): "
            "pip install 'upchirp[gpu]'"
        ) from error

    def decoder(files: list[Tensor]) -> list[Tensor]:
        images: list[Tensor] = decode_jpeg(files, mode="RGB", device=device)
        return images

    return decoder


def on_device(regions: Regions, device: torch.device, decoder: Decode | None) -> Tensor:
    """The pixels of all regions, one after another, and `resizing.slack` bytes: uint8, (bytes,), on the device.

    Args:
        regions: with their pixels, or the files that these are to be decoded from, on the host.
        device: where they are wanted.
        decoder: for those that are encoded; none needs it if all are pixels.

    Raises:
        DataFault: a file that no decoder can read.
    """
    sizes = regions.recipes[:, :2].astype(np.int64)
    behind = slack(sizes)
    if decoder is None:
        length = len(regions.pixels)
        pixels = torch.empty(length + behind, dtype=torch.uint8, device=device)
        pixels[:length].copy_(regions.pixels, non_blocking=True)
        return pixels
    parts = torch.split(regions.pixels, regions.lengths.tolist())
    boxes = {k: box for k, box in enumerate(regions.boxes.tolist()) if box[2]}
    pictures = dict(zip(boxes, _decoded([parts[k] for k in boxes], list(boxes.values()), decoder), strict=True))
    lengths = 3 * sizes.prod(axis=1)
    pixels = torch.empty(int(lengths.sum()) + behind, dtype=torch.uint8, device=device)
    for k, (place, part) in enumerate(zip(torch.split(pixels, [*lengths.tolist(), behind]), parts, strict=False)):
        if k in boxes:
            left, top, right, bottom = boxes[k]
            height, width = sizes[k].tolist()
            place.view(height, width, 3).copy_(pictures[k][:, top:bottom, left:right].permute(1, 2, 0))
        else:
            place.copy_(part, non_blocking=True)
    return pixels


def _decoded(files: list[Tensor], boxes: list[list[int]], decoder: Decode) -> list[Tensor]:
    """The pictures, in one call if all of them can be decoded: a damaged one fails all of a call."""
    if not files:
        return []
    try:
        pictures = decoder(files)
        if all(_holds(picture, box) for picture, box in zip(pictures, boxes, strict=True)):
            return pictures
    except RuntimeError:
        pass
    return [_one(file, box, decoder) for file, box in zip(files, boxes, strict=True)]


def _one(file: Tensor, box: list[int], decoder: Decode) -> Tensor:
    try:
        picture = decoder([file])[0]
        if _holds(picture, box):
            return picture
    except RuntimeError:
        pass
    try:
        # As workers do with what libjpeg-turbo complains about.
        picture = torch.from_numpy(np.array(decode(Image.open(BytesIO(file.numpy().tobytes()))))).permute(2, 0, 1)
        if _holds(picture, box):
            return picture
        reason = "it has fewer pixels than its header says"
    except OSError as error:
        reason = str(error)
    raise DataFault(
        f"a JPEG file is damaged ({reason}), and the device replaces none: `prepare='device'` does, and names it"
    )


def _holds(picture: Tensor, box: list[int]) -> bool:
    return picture.shape[0] == 3 and picture.shape[1] >= box[3] and picture.shape[2] >= box[2]

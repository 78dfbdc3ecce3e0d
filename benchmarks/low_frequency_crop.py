"""Time three forms of the low-frequency crop: full DFT (reference), half-spectrum DFT, matrix products.

Run: python benchmarks/low_frequency_crop.py --images 64 --device cpu
The forms alternate, so that a slow moment of the machine hits all; medians are printed.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch

import upchirp


def full_dft(images: torch.Tensor, bandwidth: int) -> torch.Tensor:
    height, width = images.shape[-2:]
    half = bandwidth // 2
    kept = torch.cat([torch.arange(bandwidth - half), torch.arange(-half, 0)]).to(images.device)
    spectrum = torch.fft.fft2(images)[..., kept[:, None], kept]
    return torch.fft.ifft2(spectrum * (bandwidth**2 / (height * width))).real


def half_dft(images: torch.Tensor, bandwidth: int) -> torch.Tensor:
    """Crop an even bandwidth below both sides of the images."""
    height, width = images.shape[-2:]
    half = bandwidth // 2
    spectrum = torch.fft.rfft(images, dim=-1)[..., : half + 1]
    spectrum = torch.fft.fft(spectrum, dim=-2)
    rows = torch.cat([spectrum[..., :half, :], spectrum[..., -half:, :]], dim=-2)
    # The real part of the full form averages both signs of the unpaired frequency B/2; irfft2 does it for the
    # columns.
    rows[..., half, :] = (spectrum[..., -half, :] + spectrum[..., half, :]) / 2
    rows[..., half, half] = spectrum[..., half, half]
    return torch.fft.irfft2(rows * (bandwidth**2 / (height * width)), s=(bandwidth, bandwidth))


def seconds(crop: Callable[[], torch.Tensor], device: torch.device) -> float:
    start = time.perf_counter()
    crop()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="images of 3 channels in a batch")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--bandwidths", type=int, nargs="+", default=[96, 160, 192])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()

    device = torch.device(options.device)
    images = torch.randn(options.images, 3, options.size, options.size, device=device)
    half_precision = images.bfloat16()
    forms: dict[str, Callable[[int], torch.Tensor]] = {
        "full DFT": lambda bandwidth: full_dft(images, bandwidth),
        "half DFT": lambda bandwidth: half_dft(images, bandwidth),
        "matrices": lambda bandwidth: upchirp.low_frequency_crop(images, bandwidth),
        "matrices, bfloat16": lambda bandwidth: upchirp.low_frequency_crop(half_precision, bandwidth),
    }
    results = []
    for bandwidth in options.bandwidths:
        for form in (half_dft, upchirp.low_frequency_crop):
            torch.testing.assert_close(form(images, bandwidth), full_dft(images, bandwidth), rtol=0, atol=1e-4)
        times: dict[str, list[float]] = {name: [] for name in forms}
        for repeat in range(options.repeats + 1):
            for name, form in forms.items():
                elapsed = seconds(lambda form=form: form(bandwidth), device)  # noqa: B023
                if repeat > 0:
                    times[name].append(elapsed)
        medians = {name: 1000 * statistics.median(values) for name, values in times.items()}
        results.append({"bandwidth": bandwidth, "milliseconds": medians})
    machine = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
    }
    if options.json:
        print(json.dumps({"images": options.images, "size": options.size, **machine, "results": results}, indent=2))
        return
    print(f"{options.images} x 3 x {options.size} x {options.size}, {machine}, median ms")
    print(f"{'bandwidth':>10}" + "".join(f"{name:>20}" for name in forms))
    for result in results:
        print(f"{result['bandwidth']:>10}" + "".join(f"{result['milliseconds'][name]:>20.1f}" for name in forms))


if __name__ == "__main__":
    main()

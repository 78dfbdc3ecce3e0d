"""Which of timm's families take a changing bandwidth: one small model of each is trained for a few steps.

A family is one of timm's model modules. Its model is built at its own final size and meets the bandwidths of
EfficientTrain++, rounded as a run would round them. At each, `fit_to_bandwidth` fits it with AdamW and an EMA, a
step is taken, and both models must equal a model built at that size with their weights. At the end the weights
must load strictly into plain timm's model. Example:
`python benchmarks/model_families.py --images photos/ --families maxxvit beit`
"""

import argparse
import io
import json
import multiprocessing
import re
import resource
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional

from upchirp import InputError, fit_to_bandwidth, low_frequency_crop
from upchirp.machine import hardware, versions
from upchirp.models import create_model
from upchirp.models.resizing.families import plan_fits
from upchirp.training.probing.planning import curriculum_for

NOTHING, RESIZED, REFUSED, FAILS = "nothing to do", "fitted", "refused", "fails"
CLASSES = 5
OWN_SIZES = range(224, 289)
"""Models made for smaller or larger images are tried at 224, or at 256 where they don't take that."""

SMALL_VIT: dict[str, Any] = {"depth": 2, "embed_dim": 96, "num_heads": 3}
MODELS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "beit": [("beit_base_patch16_224", SMALL_VIT), ("beitv2_base_patch16_224", SMALL_VIT)],
    "convnext": [("convnext_atto", {})],
    "efficientnet": [("efficientnet_b0", {}), ("tf_efficientnetv2_b0", {})],
    "deepseek_vit": [("deepseek_vit_412m", SMALL_VIT)],
    "eva": [("eva02_tiny_patch14_224", {"depth": 4}), ("vit_small_patch16_rope_224", {"depth": 4})],
    "maxxvit": [("maxvit_pico_rw_256", {}), ("maxvit_rmlp_pico_rw_256", {}), ("coatnet_nano_rw_224", {})],
    "mobilenetv3": [("mobilenetv3_small_100", {}), ("mobilenetv4_conv_small", {}), ("mobilenetv4_hybrid_medium", {})],
    "naflexvit": [("naflexvit_base_patch16_gap", SMALL_VIT)],
    "qwen3_vit": [("qwen3_vit_88m", SMALL_VIT)],
    "resnet": [("resnet18", {}), ("resnet50", {})],
    "vision_transformer": [
        ("vit_tiny_patch16_224", {"depth": 4}),
        ("vit_tiny_patch16_224", {"depth": 4, "patch_size": 8}),
        ("vit_tiny_patch16_224", {"depth": 4, "dynamic_img_size": True}),
    ],
    "vision_transformer_relpos": [
        ("vit_relpos_small_patch16_224", {"depth": 4}),
        ("vit_srelpos_small_patch16_224", {"depth": 4}),
        ("vit_relpos_small_patch16_224", {"depth": 4, "rel_pos_type": "bias"}),
    ],
    "vision_transformer_sam": [("samvit_base_patch16_224", SMALL_VIT)],
}
"""Tried instead of the smallest model, where others say more or the smallest is large."""


class Wrong(Exception):
    """Something that must hold did not."""


@dataclass
class Outcome:
    """What became of one family's model."""

    family: str
    model: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    result: str = FAILS
    bandwidths: tuple[int, ...] = ()
    resized_parameters: int = 0
    reason: str = ""
    seconds: float = 0.0


def smallest(family: str) -> str:
    """The family's model with the fewest parameters."""
    sizes = {}
    for name in timm.list_models(module=family):
        if not name.startswith("test_"):
            with torch.device("meta"):
                sizes[name] = sum(parameter.numel() for parameter in timm.create_model(name).parameters())
    return min(sizes, key=lambda name: sizes[name])


def final_size(name: str, arguments: dict[str, Any]) -> int:
    size = int(timm.get_pretrained_cfg(name).input_size[-1])
    if size in OWN_SIZES:
        return size
    try:
        with torch.device("meta"):
            create_model(name, final_size=224, **arguments)
    except InputError:
        return 256
    return 224


def photographs(path: Path, count: int, side: int) -> torch.Tensor:
    """The first `count` JPEGs of a folder or zip file, resized and normalised: (count, 3, side, side)."""
    images = []
    for data in jpegs(path):
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS))
        images.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1)
        if len(images) == count:
            return torch.stack(images)
    raise InputError(f"{path} holds {len(images)} JPEGs: {count} or more are needed")


def jpegs(path: Path) -> Iterator[bytes]:
    endings = (".jpg", ".jpeg")
    if path.is_dir():
        yield from (file.read_bytes() for file in sorted(path.rglob("*")) if file.suffix.lower() in endings)
        return
    with zipfile.ZipFile(path) as archive:
        yield from (archive.read(name) for name in sorted(archive.namelist()) if name.lower().endswith(endings))


def random_images(count: int, side: int) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def try_model(outcome: Outcome, images: Callable[[int], torch.Tensor]) -> None:
    """Train across the bandwidths; what is seen is written into `outcome`."""
    torch.manual_seed(0)
    final = final_size(outcome.model, outcome.arguments)

    def at_size(size: int) -> nn.Module:
        return create_model(outcome.model, num_classes=CLASSES, final_size=size, **outcome.arguments)

    model = at_size(final)
    outcome.bandwidths = curriculum_for(model, "efficienttrain_plus_plus", final).bandwidths
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ema = ModelEmaV3(model, decay=0.5)
    batch = images(final)
    labels = torch.arange(len(batch)) % CLASSES
    resized: set[str] = set()
    outcome.result = NOTHING
    for bandwidth in outcome.bandwidths:
        if plan_fits(model, bandwidth):
            outcome.result = RESIZED
        shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        fit_to_bandwidth(model, bandwidth, optimizer, ema)
        resized |= {name for name, parameter in model.named_parameters() if parameter.shape != shapes[name]}
        small = low_frequency_crop(batch, bandwidth)
        loss = sum(functional.cross_entropy(logits, labels) for logits in outputs(model.train(), small))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ema.update(model)
        check(bool(loss.isfinite()), f"the loss at {bandwidth} is {loss.item()}")
        average = (value for value in ema.module.state_dict().values() if value.is_floating_point())
        check(not any(value.isnan().any() for value in average), "the moving average is not a number")
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        check(all(id(p) in held for p in model.parameters()), f"the optimizer lost parameters at {bandwidth}")
        # With `dynamic_img_size` the parameters stay as they are at every size.
        fresh = at_size(final if getattr(model, "dynamic_img_size", False) else bandwidth)
        for trained in (model, ema.module):
            check_equal(trained, fresh, small, f"built at {bandwidth}")
    outcome.resized_parameters = len(resized)
    check_equal(model, plain(outcome, final), batch, "of plain timm")


def outputs(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The logits of every head: distilled models have two while they train."""
    result = model(images)
    return list(result) if isinstance(result, tuple | list) else [result]


def plain(outcome: Outcome, size: int) -> nn.Module:
    arguments = {"num_classes": CLASSES, **outcome.arguments}
    try:
        return timm.create_model(outcome.model, img_size=size, **arguments)
    except TypeError:
        return timm.create_model(outcome.model, **arguments)


def check_equal(trained: nn.Module, other: nn.Module, images: torch.Tensor, what: str) -> None:
    """Whether `other` takes the weights strictly and then computes the same."""
    try:
        other.load_state_dict(trained.state_dict(), strict=True)
    except RuntimeError as error:
        raise Wrong(f"the weights don't load into a model {what}: {str(error).splitlines()[1]}") from error
    with torch.no_grad():
        expected, found = outputs(other.eval(), images), outputs(trained.eval(), images)
    same = all(torch.allclose(a, b, atol=1e-5, rtol=1e-4) for a, b in zip(expected, found, strict=True))
    check(same, f"outputs differ from those of a model {what}")


def check(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Wrong(otherwise)


def work(outcome: Outcome, options: argparse.Namespace, answer: Connection) -> None:
    """In a process of its own: try, and send what became of it."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    limit = int(options.memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def images(side: int) -> torch.Tensor:
        if options.images is None:
            return random_images(options.batch_size, side)
        return photographs(options.images, options.batch_size, side)

    try:
        if not outcome.model:
            outcome.model = smallest(outcome.family)
        try_model(outcome, images)
    except InputError as error:
        outcome.result, outcome.reason = REFUSED, str(error)
    except Wrong as error:
        outcome.result, outcome.reason = FAILS, str(error)
    except Exception as error:
        outcome.result = FAILS
        outcome.reason = " ".join(f"{type(error).__name__}: {error}".split())
    answer.send(outcome)


def in_a_process(outcome: Outcome, options: argparse.Namespace) -> Outcome:
    """Run `work` within the limits of time and memory."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timm", "upchirp", "upchirp.training.probing.planning"])
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(outcome, options, theirs))
    started = time.perf_counter()
    process.start()
    theirs.close()
    try:
        answer: Outcome = ours.recv() if ours.poll(options.time_limit) else outcome
        if answer is outcome:
            answer.reason = f"not done after {options.time_limit:.0f} s"
    except EOFError:
        answer = outcome
        answer.reason = "the process ended early, probably out of memory"
    process.kill()
    process.join()
    answer.seconds = round(time.perf_counter() - started, 1)
    return answer


def tries(families: Iterable[str]) -> Iterator[Outcome]:
    for family in families:
        for model, arguments in MODELS.get(family, [("", {})]):
            yield Outcome(family, model, dict(arguments))


def spelled(row: dict[str, Any]) -> str:
    """The model with its arguments, as one would type them."""
    return row["model"] + "".join(f", {key}={value}" for key, value in row["arguments"].items())


def what_happened(row: dict[str, Any]) -> str:
    if row["result"] == RESIZED:
        count = row["resized_parameters"]
        return f"fitted, {count} parameter{'s' * (count != 1)} resized" if count else "fitted, no parameter resized"
    # The advice at the end of a refusal is for the person who asked for the size.
    reason = re.split(r": (?:the nearest|no size)", row["reason"])[0].replace("|", "\\|")
    return f"{row['result']}: {reason}" if reason else str(row["result"])


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """The table of the docs, one line a model."""
    lines = ["| timm's module | model tried | bandwidths | what happens |", "| --- | --- | --- | --- |"]
    for row in rows:
        sides = ", ".join(map(str, row["bandwidths"])) or "-"
        lines.append(f"| `{row['family']}` | `{spelled(row)}` | {sides} | {what_happened(row)} |")
    return "\n".join(lines)


def table(rows: Iterable[dict[str, Any]]) -> Table:
    view = Table("family", "model", "bandwidths", "what happens", "s")
    for row in rows:
        sides = ", ".join(map(str, row["bandwidths"]))
        view.add_row(row["family"], spelled(row), sides, what_happened(row), f"{row['seconds']:.0f}")
    return view


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", metavar="NAME", help="modules of timm.models; all by default")
    parser.add_argument("--images", type=Path, help="folder or zip file of JPEGs; random images otherwise")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--time-limit", type=float, default=180.0, help="seconds for one model")
    parser.add_argument("--memory-gib", type=float, default=12.0, help="address space of one process")
    parser.add_argument("--json", action="store_true", help="print the record, on top of what --update holds")
    parser.add_argument("--update", type=Path, metavar="FILE", help="a record whose rows of other families are kept")
    parser.add_argument("--markdown", action="store_true", help="print the table of the docs")
    options = parser.parse_args()
    known = timm.list_modules()
    families = options.families or known
    for family in families:
        if family not in known:
            parser.error(f"timm has no module {family!r}: it has {', '.join(known)}")
    if options.images is not None and not options.images.exists():
        parser.error(f"{options.images} is missing: name a folder or zip file of JPEGs by --images")
    rows = []
    for outcome in tries(families):
        rows.append(asdict(in_a_process(outcome, options)))
        print(f"{rows[-1]['family']}: {what_happened(rows[-1])}", file=sys.stderr)
    run = {
        "command": " ".join(["python", "benchmarks/model_families.py", *sys.argv[1:]]),
        "images": options.images.name if options.images else "random",
        "families": families,
        "hardware": hardware(),
        "versions": versions(),
    }
    runs = [run]
    if options.update:
        record = json.loads(options.update.read_text(encoding="utf-8"))
        kept = [row for row in record["models"] if row["family"] not in families]
        rows, runs = sorted(kept + rows, key=lambda row: row["family"]), [*record["runs"], run]
    if options.markdown:
        print(markdown(rows))
    elif options.json:
        print(json.dumps({"models": rows, "runs": runs}, indent=2))
    else:
        Console().print(table(rows))


if __name__ == "__main__":
    main()

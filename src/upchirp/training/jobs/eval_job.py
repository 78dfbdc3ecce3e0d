"""Evaluation of trained weights, from files to figures."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from upchirp.data import Source
from upchirp.data.label_sets import label_sets_of
from upchirp.data.sources import Note
from upchirp.data.workers.deaths import loader_failures
from upchirp.errors import InputError
from upchirp.files import check_folder_of
from upchirp.models import at_size
from upchirp.spectral import high_pass_filter, low_pass_filter
from upchirp.training.assets.eval_data import open_labelled
from upchirp.training.assets.trained import TrainedWeights, read_trained
from upchirp.training.checkpoints import checkpoint
from upchirp.training.checkpoints.loading import load_weights
from upchirp.training.engine.multi_label import MultiLabel
from upchirp.training.evaluation.class_table import check_class_table, write_class_table
from upchirp.training.evaluation.evaluation import Evaluation, View, evaluate
from upchirp.training.evaluation.images import EvaluationSet
from upchirp.training.evaluation.sized import SizedEvaluation
from upchirp.training.events import Observer, Report, noting, reporting
from upchirp.training.folders.run_folder import REPORT, holds_run, kept_checkpoints
from upchirp.training.jobs.eval_report import report_evaluation
from upchirp.training.parallel.device import choose_device
from upchirp.training.parallel.ranks import Ranks, open_ranks
from upchirp.training.recipes.checks import at_least
from upchirp.training.recipes.eval_groups import EvalData, EvalLoading, EvalPreprocessing, Frequencies, Origin
from upchirp.training.recipes.precision import fast_autocast_dtype


def evaluate_weights(
    origin: Origin,
    data: EvalData = EvalData(),
    *,
    sizes: Sequence[int] = (),
    frequencies: Frequencies = Frequencies(),
    preprocessing: EvalPreprocessing = EvalPreprocessing(),
    loading: EvalLoading = EvalLoading(),
    checkpoints: bool = False,
    device: str | None = None,
    report_file: Path | None = None,
    per_class_file: Path | None = None,
    observers: Sequence[Observer] = (),
) -> list[SizedEvaluation]:
    """Evaluate a run's weights, or a weights file, on the validation images, at one input side or several.

    Where weights and data both name their classes, labels are matched by name: the data may have the weights' classes
    in another order, or some of them only.

    What depends on the side (positions, windows) is resized from the one that the weights were trained at. FixRes
    (compared with in Table 11) rests on the finding that a somewhat larger side than in training does better.

    Args:
        origin: which weights.
        data: which images; without a word all of a folder of classes, but of the run's own what it was not trained on.
        sizes: input sides, pixels; by default the run's final size, else what the weights say, else 224.
        frequencies: evaluate filtered images instead.
        preprocessing: of the images, where it shall be another than the weights say.
        loading: of the images; ranks that torchrun started share them out.
        checkpoints: evaluate every checkpoint that the run kept instead, the oldest first (Figure 4, Table 1).
        device: where to evaluate.
        report_file: write an HTML file there, with pictures of the worst confusions; for one evaluation only.
        per_class_file: write a CSV there with a row for each class, as `SizedEvaluation.by_class` has it; for one
            evaluation only.
        observers: called with a `Noted` for what the figures rest on and `Working` for what goes on, on every rank.

    Raises:
        InputError: something is missing or does not fit together.

    >>> import tempfile, timm
    >>> from PIL import Image
    >>> from safetensors.torch import save_file
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("cat", "dog"):
    ...     (folder / "photos" / name).mkdir(parents=True)
    ...     Image.new("RGB", (40, 30)).save(folder / "photos" / name / "1.png")
    >>> save_file(timm.create_model("test_resnet", num_classes=2).state_dict(), folder / "model.safetensors")
    >>> weights = Origin(weights=folder / "model.safetensors", model="test_resnet")
    >>> photos = EvalData(data=str(folder / "photos"))
    >>> found = evaluate_weights(weights, photos, sizes=(32, 48), loading=EvalLoading(workers=0))
    >>> [(result.size, result.evaluation.images, round(result.evaluation.top1)) for result in found]
    [(32, 2, 50), (48, 2, 50)]
    """
    origins: Mapping[int | None, Origin] = _checkpoints_of(origin) if checkpoints else {None: origin}
    filters = _filters(frequencies)
    _check_files(report_file, per_class_file, evaluations=len(origins) * max(len(sizes), 1) * len(filters))
    note, report = noting(observers), reporting(observers)
    trained = read_trained(next(iter(origins.values())), preprocessing)
    sizes = tuple(sizes) or (trained.size,)
    at_least(1, sizes=min(sizes))
    source = open_labelled(data, trained, sizes[0], note, report)
    report("making the model")
    network = trained.network(len(source.classes), *sizes, note=note).to(target := choose_device(device))
    evaluator = _Evaluator(trained, source, network, sizes[0], target, filters, loading, note, report)
    with open_ranks() as ranks, loader_failures():
        results = [result for size in sizes for result in evaluator.at(size, origins, ranks)]
        if ranks.is_first:
            evaluator.write(results[0], (origin.run or trained.weights.path).name, report_file, per_class_file)
    # By checkpoint: images are prepared once for each size.
    return sorted(results, key=lambda result: result.step or 0)


def _checkpoints_of(origin: Origin) -> dict[int | None, Origin]:
    """What a run kept of its training, by its steps, the oldest first."""
    if origin.run is None or origin.weights is not None:
        raise InputError("`checkpoints` are those of a `run`: leave out `weights`")
    return {checkpoint.step_of(file): replace(origin, weights=file) for file in kept_checkpoints(origin.run)}


class _Filtering(NamedTuple):
    """What is left of images, under the names of `SizedEvaluation`, and what does it."""

    left: dict[str, float]
    filtered: Callable[[torch.Tensor], torch.Tensor] | None


def _filters(frequencies: Frequencies) -> list[_Filtering]:
    """One for each evaluation of a size: all frequencies are left, unless something is asked for."""
    below = [_Filtering({"low_pass": r}, partial(low_pass_filter, radius=r)) for r in frequencies.low_pass]
    above = [_Filtering({"high_pass": r}, partial(high_pass_filter, radius=r)) for r in frequencies.high_pass]
    return [*below, *above] or [_Filtering({}, None)]


def _check_files(report_file: Path | None, per_class_file: Path | None, evaluations: int) -> None:
    """Refuse what would not be of one evaluation, and files that are none of ours to write over."""
    for setting, path in (("report_file", report_file), ("per_class_file", per_class_file)):
        if path is None:
            continue
        if evaluations > 1:
            raise InputError(f"`{setting}` is of one evaluation: give one size and one filter, or leave it out")
        check_folder_of(path, setting)
    if report_file is not None and report_file.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"a report is HTML, and {report_file} is called otherwise: let `report_file` end in .html")
    if report_file is not None and report_file.name == REPORT and holds_run(report_file.parent):
        raise InputError(f"{report_file} is the report of the run's training: give `report_file` another name")
    if per_class_file is not None:
        check_class_table(per_class_file)


@dataclass(frozen=True, eq=False)
class _Evaluator:
    """A model and images, and all that stays as it is from size to size."""

    trained: TrainedWeights
    source: Source
    network: nn.Module
    first: int
    """Input side at which the network has the weights already, pixels."""
    device: torch.device
    filters: Sequence[_Filtering]
    loading: EvalLoading
    note: Note
    report: Report
    told: list[str] = field(default_factory=list)
    """Lines on images that cannot be read, which each size finds again."""

    def at(self, size: int, origins: Mapping[int | None, Origin], ranks: Ranks) -> Iterator[SizedEvaluation]:
        """Evaluate weights, each under the number of its steps, at an input side in pixels."""
        images = self.trained.images(self.source, size, self.loading, ranks)
        for place, (step, origin) in enumerate(origins.items()):
            self.report(f"evaluating at {size} px", *(() if step is None else (place, len(origins))))
            weights = read_trained(origin).weights if place else self.trained.weights
            if place or size != self.first:
                # From the stored ones, not from those of another size: there and back would blur positions.
                load_weights(self.network, weights, size)
            found = self._evaluated(images, autocast=origin.run is not None)
            for line in images.left_out():
                if line not in self.told:
                    self.told.append(line)
                    self.note(line)
            if not all(math.isfinite(each.loss) for each in found):
                self.note(f"the loss at {size} px is not finite: the model's outputs are no numbers")
            for each, filtering in zip(found, self.filters, strict=True):
                yield SizedEvaluation(size, each, **filtering.left, classes=tuple(self.source.classes), step=step)

    def _evaluated(self, images: EvaluationSet, *, autocast: bool) -> list[Evaluation]:
        """By each filter."""
        sets = label_sets_of(self.source)
        with at_size(self.network, images.size) as fitted:
            return evaluate(
                [View("model", fitted, images.size, filtered=each.filtered) for each in self.filters],
                images,
                device=self.device,
                # As the run evaluated itself; weights from elsewhere are evaluated in float32.
                autocast=fast_autocast_dtype(self.trained.config.optimization, self.device) if autocast else None,
                task=None if sets is None else MultiLabel(sets),
            )

    def write(self, result: SizedEvaluation, name: str, report_file: Path | None, per_class_file: Path | None) -> None:
        """Write the files that are asked for, of what is called `name`."""
        if report_file is not None:
            self.report("writing the report")
            report_evaluation(name, result.evaluation, result.size, self.source, self.trained.seen, report_file)
        if per_class_file is not None:
            write_class_table(per_class_file, result.by_class())

"""The log of a run: what is written of its events into its folder, and plotted by TensorBoard and every tracker."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from upchirp.files import clear_leftovers, write_text
from upchirp.training.events import Evaluated, Event, Finished, Logged, Reduced, Saved, Selected
from upchirp.training.folders.run_folder import METRICS, TENSORBOARD, read_metrics


def scalars(event: Event, exported: tuple[str, int]) -> tuple[int, dict[str, float]] | None:
    """After how many steps something was measured, and what, under the names that are plotted; none of other events.

    `exported` are the weights that the run exports, and their side, so that one accuracy is shown by itself.
    """
    if isinstance(event, Logged):
        return event.step.index + 1, {f"train/{name}": value for name, value in _figures(event).items()}
    if isinstance(event, Evaluated):
        result = event.result
        tag = f"evaluation/{event.weights}/{event.bandwidth}"
        values = {f"{tag}/{result.best}": result.score, f"{tag}/loss": result.loss}
        if (event.weights, event.bandwidth) == exported:
            values[result.best] = result.score
        return event.step, values
    if isinstance(event, Selected):
        size = event.summary.kept + event.summary.left_out
        return event.step.index + 1, {"pass/left_out": event.summary.left_out / size}
    return None


class RunLog:
    """Writes events to `metrics.jsonl` and TensorBoard.

    On resuming, what was logged after the checkpoint is dropped, so each step stands there once.
    """

    def __init__(self, folder: Path, start_step: int, *, evaluates: bool, exported: tuple[str, int]) -> None:
        self._exported = exported
        dropped = {("evaluation", start_step)} if evaluates else set()
        kept = [
            record
            for record in read_metrics(folder)
            if record["step"] <= start_step
            and record["kind"] != "end"
            and (record["kind"], record["step"]) not in dropped
        ]
        clear_leftovers(folder)
        write_text(folder / METRICS, "".join(json.dumps(record) + "\n" for record in kept))
        self._lines = (folder / METRICS).open("a", encoding="utf-8")
        # A plan does not wait for it.
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=start_step + 1)

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        if (measured := scalars(event, self._exported)) is not None:
            index, plotted = measured
            for name, value in plotted.items():
                self._board.add_scalar(name, value, index)
        if isinstance(event, Logged):
            step = event.step
            where = {"stage": step.stage, "progress": step.progress, "train_seconds": event.train_seconds}
            self._write("train", step.index + 1, {**where, **_figures(event)})
        elif isinstance(event, Evaluated):
            evaluation: dict[str, object] = {
                "progress": event.progress,
                "bandwidth": event.bandwidth,
                "weights": event.weights,
                "train_seconds": event.train_seconds,
            }
            self._write("evaluation", event.step, {**evaluation, **event.result.to_dict()})
        elif isinstance(event, Selected):
            self._write("pass", event.step.index + 1, {"progress": event.step.progress, **asdict(event.summary)})
        elif isinstance(event, Reduced):
            bandwidth = event.step.bandwidth
            self._write("micro_batch", event.step.index + 1, {"bandwidth": bandwidth, "micro_batch": event.micro_batch})
        elif isinstance(event, Saved):
            self._board.flush()
        elif isinstance(event, Finished):
            ended = {"top1": event.top1, "best_top1": event.best_top1, "train_seconds": event.train_seconds}
            self._write("end", event.step, {**ended, "figure": event.figure, "spent": dict(event.spent)})

    def close(self) -> None:
        """Flush and close the files."""
        try:
            self._lines.close()
        finally:
            self._board.close()

    def _write(self, kind: str, step: int, values: Mapping[str, object]) -> None:
        self._lines.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self._lines.flush()


def _figures(event: Logged) -> dict[str, float]:
    """What a line of the log tells of the steps since the last one, by name."""
    step = event.step
    return {
        "loss": event.loss,
        "learning_rate": step.learning_rate,
        "bandwidth": step.bandwidth,
        **({} if step.magnitude is None else {"magnitude": step.magnitude}),
        "images_per_second": event.images_per_second,
        "wait_share": event.wait_share,
        "prepared_per_second": event.prepared_per_second,
        "megabytes_per_second": event.megabytes_per_second,
    }

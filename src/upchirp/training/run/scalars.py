"""What is plotted of a run's events, under the names by which TensorBoard and every tracker show it."""

from upchirp.training.events import Evaluated, Event, Logged, Selected


def scalars(event: Event, exported: tuple[str, int]) -> tuple[int, dict[str, float]] | None:
    """After how many steps something was measured, and what; none of events that hold no figures.

    `exported` are the weights that the run exports, and their side, so that one accuracy is shown by itself.
    """
    if isinstance(event, Logged):
        step = event.step
        magnitude = {} if step.magnitude is None else {"magnitude": step.magnitude}
        values = {
            "loss": event.loss,
            "learning_rate": step.learning_rate,
            "bandwidth": step.bandwidth,
            **magnitude,
            "images_per_second": event.images_per_second,
            "wait_share": event.wait_share,
            "prepared_per_second": event.prepared_per_second,
            "megabytes_per_second": event.megabytes_per_second,
        }
        return step.index + 1, {f"train/{name}": value for name, value in values.items()}
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

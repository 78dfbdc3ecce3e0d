"""How well a model does at one input side, class by class and as plain data."""

from dataclasses import dataclass
from typing import Any

from upchirp.training.evaluation.evaluation import Evaluation


@dataclass(frozen=True)
class SizedEvaluation:
    """How well a model does at one input side."""

    size: int
    """Pixels."""
    evaluation: Evaluation
    """Accuracy and loss."""
    low_pass: float | None = None
    """Radius of the frequencies that were left in the images, periods per image."""
    high_pass: float | None = None
    """Radius of those that were taken out."""
    classes: tuple[str, ...] = ()
    """Names of the classes, label 0 first."""
    step: int | None = None
    """Steps after which the weights were kept, where they are a checkpoint of several."""

    def by_class(self) -> list[dict[str, Any]]:
        """For each class of the images its name, images, those guessed right, and their share in percent.

        Where images have several labels, of every class its average precision instead, its highest F1 and the threshold
        of that; none if no image has it.
        """
        if self.evaluation.scores is not None:
            return self.evaluation.scores.by_class(self.classes)
        predictions = self.evaluation.predictions
        if predictions is None or not len(predictions):
            return []
        right, images = predictions.by_class(max(len(self.classes), 1 + int(predictions.labels.max())))
        return [
            {"class": self._name(label), "images": count, "right": hits, "accuracy": 100 * hits / count}
            for label, (hits, count) in enumerate(zip(right.tolist(), images.tolist(), strict=True))
            if count
        ]

    def confusions(self) -> list[dict[str, Any]]:
        """For each pair of classes that was confused their names and how many images, the most frequent first.

        Where images have several labels nothing is taken for something else.
        """
        predictions = self.evaluation.predictions
        pairs = [] if predictions is None else predictions.confusions()
        return [{"class": self._name(k), "guess": self._name(guess), "images": count} for k, guess, count in pairs]

    def _name(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) else str(label)

    def to_dict(self) -> dict[str, float]:
        """Plain data."""
        filters = {"low_pass": self.low_pass, "high_pass": self.high_pass}
        own = {name: value for name, value in {"step": self.step, **filters}.items() if value is not None}
        return {"size": self.size, **own, **self.evaluation.to_dict()}

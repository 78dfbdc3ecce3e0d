"""Which texts of a figure cover each other."""

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text


def overlapping_texts(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts of a figure's axes whose boxes meet."""
    figure.draw_without_rendering()
    texts = [text for axes in figure.axes for text in [*axes.texts, *_shown(axes.xaxis), *_shown(axes.yaxis)]]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text() and text.get_visible()]
    return [(one, other) for k, (one, box) in enumerate(boxes) for other, taken in boxes[:k] if box.overlaps(taken)]


def _shown(axis: Axis) -> list[Text]:
    """An axis' label and those of its ticks that are in view."""
    low, high = sorted(axis.get_view_interval())
    # The inner panels of a shared axis have no labels.
    ticks = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=False)
    return [axis.label, *(label for place, label in ticks if low <= place <= high)]

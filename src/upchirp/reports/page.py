"""A page from a template, and pictures as parts of it."""

import io
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from upchirp.reports.examples import ExampleRow, Examples, example_strip
from upchirp.reports.style import NARROW, WIDE, to_svg


def render(template: str, **values: Any) -> str:
    """A page from one of the report templates; every text is escaped."""
    environment = Environment(
        loader=PackageLoader("upchirp", "reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment.get_template(template).render(**values)


def _breakable(name: str) -> Markup:
    """A name that a narrow column breaks behind its underscores."""
    return Markup("_<wbr>").join(name.split("_"))


@dataclass(frozen=True, kw_only=True)
class Image:
    """Pixels as an image element has them."""

    source: str
    """PNG."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The examples of one stage."""

    stage: int
    bandwidth: int
    progress: str
    magnitude: str
    """Empty where there is none."""
    image: Image


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure in two layouts, as sources of an image element."""

    wide: str
    """For a page on a screen."""
    narrow: str
    """For a phone."""


def picture(draw: Callable[..., Figure], *content: Any) -> Picture:
    """A figure for screens and for phones.

    Args:
        draw: takes the content and the width in inches.
        content: what it draws.
    """
    return Picture(wide=svg_source(draw(*content, width=WIDE)), narrow=svg_source(draw(*content, width=NARROW)))


def svg_source(figure: Figure) -> str:
    """A figure as the source of an image element."""
    # Inside an image element no name in the figure can become markup of the page.
    return "data:image/svg+xml;base64," + b64encode(to_svg(figure)).decode("ascii")


def png_source(image: NDArray[np.uint8]) -> str:
    """A picture, uint8 of shape `(height, width, channels)`, as the source of an image element."""
    stream = io.BytesIO()
    PIL.Image.fromarray(image).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + b64encode(stream.getvalue()).decode("ascii")


def image_of(pixels: NDArray[np.uint8]) -> Image:
    """A picture, uint8 of shape `(height, width, channels)`, for the macro `image` of the templates."""
    return Image(source=png_source(pixels), width=pixels.shape[1], height=pixels.shape[0])


def strip_rows(examples: Examples, final_size: int) -> list[Strip]:
    """The examples of each stage that has any."""
    return [_strip(place, row, final_size) for place, row in enumerate(examples.rows, 1) if row.images]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Pictures side by side, as an image for a page."""

    what: str
    """What they are of."""
    bandwidth: int
    """Their side, pixels."""
    first: bool
    """Whether they are the first of their side."""
    image: Image


def answer_strips(answers: Sequence[tuple[str, ExampleRow]], final_size: int) -> list[Answer]:
    """What a task shows, stage by stage."""
    strips: list[Answer] = []
    for what, row in answers:
        first = not any(each.bandwidth == row.bandwidth for each in strips)
        shown = image_of(example_strip(row, final_size))
        strips.append(Answer(what=what, bandwidth=row.bandwidth, first=first, image=shown))
    return strips


def _strip(place: int, row: ExampleRow, final_size: int) -> Strip:
    start, end = row.progress
    return Strip(
        stage=place,
        bandwidth=row.bandwidth,
        progress=f"{100 * start:.0f} to {100 * end:.0f} %",
        magnitude="" if row.magnitude is None else " to ".join(dict.fromkeys(f"{m:.1f}" for m in row.magnitude)),
        image=image_of(example_strip(row, final_size)),
    )

"""A page from a template, and pictures as parts of it."""

import io
from base64 import b64encode
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from upchirp.reports.style import to_svg


def render(template: str, **values: Any) -> str:
    """A page from one of the report templates; every text is escaped."""
    environment = Environment(
        loader=PackageLoader("upchirp", "reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def svg_source(figure: Figure) -> str:
    """A figure as the source of an image element."""
    # Inside an image element no name in the figure can become markup of the page.
    return "data:image/svg+xml;base64," + b64encode(to_svg(figure)).decode("ascii")


def png_source(image: NDArray[np.uint8]) -> str:
    """A picture, uint8 of shape `(height, width, channels)`, as the source of an image element."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + b64encode(stream.getvalue()).decode("ascii")

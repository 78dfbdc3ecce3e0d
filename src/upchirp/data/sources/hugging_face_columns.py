"""The columns of a Hugging Face data set that hold its images and their labels."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from upchirp.errors import InputError

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "fine_label", "cls")
_LIST_NAMES = ("tags", "classes", "categories", "targets", "attributes")
_COUNTED, _NAMED = re.compile(r"u?int\d+|bool"), re.compile(r"(large_)?string")
"""Types of lists' values."""


def image_column(dataset: Any, wanted: str | None, name: str) -> str:
    """The column of encoded images; `wanted` if it is given."""
    datasets = library()

    def is_image(feature: Any) -> bool:
        return isinstance(feature, datasets.Image)

    def is_encoded(feature: Any) -> bool:
        inner = feature.get("bytes") if isinstance(feature, dict) else feature
        return getattr(inner, "dtype", None) in ("binary", "large_binary")

    return _choose(
        dataset.features,
        wanted,
        [is_image, is_encoded],
        (_IMAGE_NAMES,),
        f"{name} needs one column of encoded images (the feature Image, or bytes)",
        "image",
    )


def label_column(dataset: Any, wanted: str | None, name: str) -> str:
    """The column of labels; `wanted` if it is given."""
    datasets = library()
    integers = re.compile(r"u?int\d+")

    def is_class(feature: Any) -> bool:
        return isinstance(inner(feature) or feature, datasets.ClassLabel)

    def is_integer(feature: Any) -> bool:
        return isinstance(feature, datasets.Value) and bool(integers.fullmatch(str(feature.dtype)))

    def is_list(feature: Any) -> bool:
        values = inner(feature)
        kind = str(values.dtype) if isinstance(values, datasets.Value) else ""
        return bool(_COUNTED.fullmatch(kind) or _NAMED.fullmatch(kind))

    names = (_LABEL_NAMES, _LIST_NAMES)
    known = {column: feature for column, feature in dataset.features.items() if any(column in each for each in names)}
    # Integers and texts may be anything, a class tells what it is.
    features = dataset.features if wanted or any(map(is_class, dataset.features.values())) else known
    return _choose(
        features,
        wanted,
        [is_class, is_integer, is_list],
        names,
        f"{name} needs one column of labels (the feature ClassLabel, or integers named {', '.join(_LABEL_NAMES)}, or a "
        "list of classes, integers or texts)",
        "label",
        listed=dataset.features,
    )


def inner(feature: Any) -> Any:
    """The feature of a list's values; nothing if it is no list."""
    # The library has written lists in four ways.
    return feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)


def _choose(
    features: dict[str, Any],
    wanted: str | None,
    kinds: Sequence[Callable[[Any], bool]],
    names: Sequence[Sequence[str]],
    need: str,
    argument: str,
    listed: dict[str, Any] | None = None,
) -> str:
    """The column of the first kind that any column is of; of several the only one with a known name.

    Of groups of names the first that any of them is in counts.
    """
    asked = " by `label_column`" if argument == "label" else ""
    columns = ", ".join(f"{column} ({_kind(feature)})" for column, feature in (listed or features).items())
    if wanted is not None:
        if wanted not in features or not any(kind(features[wanted]) for kind in kinds):
            raise InputError(f"{need}, and {wanted!r} is none: it has the columns {columns}")
        return wanted
    for kind in kinds:
        found = [column for column, feature in features.items() if kind(feature)]
        known = ([column for column in found if column in group] for group in names)
        for columns_found in (found, *known):
            if len(columns_found) == 1:
                return columns_found[0]
        if found:
            raise InputError(
                f"{need}, and has {len(found)} ({', '.join(found)}): "
                f"name one{asked}, HuggingFaceSource(dataset, {argument}={found[0]!r})"
            )
    raise InputError(
        f"{need}: it has the columns {columns}; cast one, or name it{asked}, HuggingFaceSource(..., {argument}=...)"
    )


def _kind(feature: Any) -> str:
    """What a feature is, in a word."""
    if isinstance(feature, dict):
        return "struct"
    kind = type(feature).__name__
    return str(feature.dtype) if kind == "Value" else kind


def library() -> Any:
    """The package `datasets`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise InputError("Hugging Face data sets need the package datasets: pip install 'upchirp[hf]'") from None
    return datasets

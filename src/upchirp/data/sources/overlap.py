"""Images that two sources have in common, without reading them all."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePath
from typing import NamedTuple

from upchirp.data.sources.joined import JoinedSource
from upchirp.data.sources.listed import ListedSource
from upchirp.data.sources.relabelled import RelabelledSource
from upchirp.data.sources.source import Source
from upchirp.data.sources.subset import SubsetSource

_MOST_READ = 100
"""Pairs of files of the same name and length whose bytes are compared."""


class Overlap(NamedTuple):
    """Images of one source that another one has, too, by their paths in the first."""

    same: list[str]
    """The very same files, whatever paths lead to them."""
    copies: list[str]
    """Files of the same name and the same bytes."""


def overlap(one: Source, other: Source) -> Overlap:
    """The images of one source that another one has as well, as far as names tell without opening all of them.

    Only files and members of archives are compared, and only where they have the same name. Memory is for the names of
    the first.

    >>> from upchirp.data.sources.generated import GeneratedSource
    >>> overlap(GeneratedSource("val"), GeneratedSource("val"))
    Overlap(same=[], copies=[])
    """
    places: dict[str, list[tuple[ListedSource, int]]] = defaultdict(list)
    for source, index in _files(one):
        places[_name(source, index)].append((source, index))
    same, copies, left = dict[str, None](), dict[str, None](), _MOST_READ
    for source, index in _files(other):
        for held, place in places.get(_name(source, index), ()):
            # What cannot be read is told where it is used.
            with suppress(OSError):
                (file, length), (held_file, held_length) = source.stored(index), held.stored(place)
                if file == held_file:
                    same[held.describe(place)] = None
                elif length == held_length and left:
                    left -= 1
                    if source.encoded(index)[0] == held.encoded(place)[0]:
                        copies[held.describe(place)] = None
    return Overlap([*same], [*copies])


def _name(source: ListedSource, index: int) -> str:
    return PurePath(source.describe(index)).name


def _files(source: Source) -> Iterator[tuple[ListedSource, int]]:
    """The images of a source that are files, each as the listing that it is from and its place there."""
    if isinstance(source, ListedSource):
        yield from ((source, index) for index in range(len(source)))
    elif isinstance(source, JoinedSource):
        for part in source.parts:
            yield from _files(part)
    elif isinstance(source, RelabelledSource):
        yield from _files(source.whole)
    elif isinstance(source, SubsetSource) and isinstance(source.whole, ListedSource):
        yield from ((source.whole, int(index)) for index in source.indices)

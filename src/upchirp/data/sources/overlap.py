"""Images that two sources have in common, without reading them all."""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import NamedTuple

from upchirp.data.sources.joined import JoinedSource
from upchirp.data.sources.listed import ListedSource
from upchirp.data.sources.relabelled import RelabelledSource
from upchirp.data.sources.source import Source
from upchirp.data.sources.subset import SubsetSource

_Place = tuple[ListedSource, int]
"""A listing, and the place of an image there."""
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
    places: dict[str, list[_Place]] = defaultdict(list)
    for place in _files(one):
        places[_name(*place)].append(place)
    # Many classes may have an image of one name: each file is looked at once, not once for each pair.
    looked_at: dict[str, _Stored] = {}
    same, copies, left = dict[str, None](), dict[str, None](), _MOST_READ
    for source, index in _files(other):
        name = _name(source, index)
        if name not in places:
            continue
        if name not in looked_at:
            looked_at[name] = _Stored.of(places[name])
        held = looked_at[name]
        # What cannot be read is told where it is used.
        with suppress(OSError):
            file, length = source.stored(index)
            if file in held.by_file:
                same[held.by_file[file]] = None
                continue
            for whose, position in held.by_length.get(length, ())[:left]:
                left -= 1
                if source.encoded(index)[0] == whose.encoded(position)[0]:
                    copies[whose.describe(position)] = None
    return Overlap([*same], [*copies])


class _Stored(NamedTuple):
    """Files of one name."""

    by_file: dict[Hashable, str]
    """Their paths, by what tells each file from all others."""
    by_length: dict[int, list[_Place]]
    """Their places, by their lengths in bytes."""

    @classmethod
    def of(cls, places: Sequence[_Place]) -> "_Stored":
        """What the files at these places are; those that are gone are left out."""
        found = cls({}, defaultdict(list))
        for source, index in places:
            with suppress(OSError):
                file, length = source.stored(index)
                found.by_file[file] = source.describe(index)
                found.by_length[length].append((source, index))
        return found


def _name(source: ListedSource, index: int) -> str:
    return PurePath(source.describe(index)).name


def _files(source: Source) -> Iterator[_Place]:
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

"""Groups of settings: dataclasses that check themselves, and of which several make up a larger one."""

from dataclasses import fields
from typing import Any, TypeVar

Part = TypeVar("Part")


class Group:
    """Base of groups of settings, of which several make a larger one: each checks its own values."""

    def __post_init__(self) -> None:
        """Refuse values that make no sense; a group does so, and then calls the next one's.

        Raises:
            InputError: naming the setting.
        """


def group_of(kind: type[Part], settings: Any) -> Part:
    """A dataclass whose fields are settings, from an object that has them under the same names."""
    return kind(**{entry.name: getattr(settings, entry.name) for entry in fields(kind)})  # type: ignore[arg-type]


def names_of(*groups: type) -> set[str]:
    """The names of the settings of some groups."""
    return {entry.name for group in groups for entry in fields(group)}

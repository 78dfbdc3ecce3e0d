"""The words of a command that belong to no flag: they stand before, between and behind flags."""

import re
from collections.abc import Mapping, Sequence

_NUMBER = re.compile(r"-?[\d.][\d.,e+-]*")


def apart(words: Sequence[str], takes: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """The words that no flag takes, and all others.

    A list of numbers or of NAME=VALUE ends at the first word that is none, a list of names at the next flag. What
    stands behind `--` belongs to no flag, and what stands behind an unknown flag is told with it.

    Args:
        words: the arguments.
        takes: what each flag takes, as the help shows it; nothing for one that is on or off.

    >>> takes = {"--csv": "", "--run": "PATH", "--seeds": "INT ..."}
    >>> apart(["a", "--csv", "b", "--run", "r", "c", "--seeds", "0", "1", "d", "--", "--e"], takes)
    (['a', 'b', 'c', 'd', '--e'], ['--csv', '--run', 'r', '--seeds', '0', '1'])
    """
    loose: list[str] = []
    others: list[str] = []
    values, left = "", 0
    for place, word in enumerate(words):
        if word == "--":
            return [*loose, *words[place + 1 :]], others
        if _is_flag(word):
            others.append(word)
            flag, equals, _ = word.replace("_", "-").partition("=")
            values = "" if equals or takes.get(f"--{flag.removeprefix('--no-')}") == "" else takes.get(flag, "TEXT ...")
            left = len(words) if "..." in values else len(values.split())
        elif left and _fits(word, values):
            others.append(word)
            left -= 1
        else:
            loose.append(word)
            left = 0
    return loose, others


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word != "-" and not _NUMBER.fullmatch(word)


def _fits(word: str, values: str) -> bool:
    """Whether a word may be one of those that a flag takes."""
    if "NAME=VALUE" in values:
        return "=" in word
    if values.partition("|")[0] in ("INT ...", "FLOAT ..."):
        return bool(_NUMBER.fullmatch(word)) or word in values.split("|")
    return True

"""The commands, and what becomes of their errors."""

import difflib
import importlib
import os
import sys

from upchirp.cli.flags import with_flags
from upchirp.cli.printable import printable
from upchirp.errors import InputError, one_line

COMMANDS = {
    "train": "train a model by curriculum",
    "pretrain": "pre-train a vision transformer on images without labels, by the same curriculum",
    "finetune": "train on from given weights, or tune them for a larger size (FixRes)",
    "plan": "show the stages, steps and speed-up of a training before it runs",
    "eval": "evaluate trained weights",
    "predict": "say what images show, by trained weights",
    "export": "write trained weights as timm, torchvision, ONNX and others read them",
    "probe": "say what the features of trained weights are worth: nearest neighbours, a linear classifier",
    "pack": "write a data set as shards from which small bandwidths read fewer bytes",
    "search": "find the best curriculum for your own data and model",
    "similarity": "how alike the checkpoints of two runs see (CKA)",
    "compare": "train several curricula on the same data and report accuracy against time",
}


def run(words: list[str]) -> int:
    """Run one command; returns the exit code."""
    try:
        return _dispatch(words)
    except InputError as error:
        _say_error(printable(with_flags(str(error))))
        return 2
    except BrokenPipeError:
        # The reader of the output went away, as with `| head`.
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say_error(printable(f"{where}{error.strerror or one_line(error)}"))
        return 2


def _say_error(line: str) -> None:
    """Print it, unless another of torchrun's ranks has."""
    if "WORLD_SIZE" in os.environ:
        from upchirp.training.parallel.ranks import says_first

        if not says_first(line):
            return
    print(f"upchirp: error: {line}", file=sys.stderr)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"upchirp {version('upchirp')}")
        return 0
    if words[0] == "completion":
        from upchirp.cli.completion import print_script

        print_script(words[1:], COMMANDS)
        return 0
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], [*COMMANDS, "completion"], n=1)
        hint = f": did you mean {near[0]}?" if near else f": choose one of {', '.join(COMMANDS)}"
        raise InputError(f"unknown command {words[0]!r}{hint}")
    command = importlib.import_module(f"upchirp.cli.{words[0]}")
    code: int = command.run(words[1:])
    return code


def _usage() -> str:
    lines = [f"  {name:<11}{what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: upchirp COMMAND [OPTIONS]",
            "",
            *lines,
            "",
            "`upchirp COMMAND --help` lists the options of a command; `upchirp completion SHELL` prints a script",
            "by which bash, zsh or fish completes them.",
        ]
    )

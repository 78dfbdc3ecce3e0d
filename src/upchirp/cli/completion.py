"""`upchirp completion`: a script by which a shell completes commands, flags and values."""

import contextlib
import importlib
import io
import re
from collections.abc import Mapping, Sequence
from functools import cache

from upchirp.errors import InputError

_USAGE = """usage: upchirp completion bash|zsh|fish

Print the script by which a shell completes upchirp's commands, flags and values. Once, for your shell:

  bash   upchirp completion bash > ~/.local/share/bash-completion/completions/upchirp
  zsh    echo 'source <(upchirp completion zsh)' >> ~/.zshrc
  fish   upchirp completion fish > ~/.config/fish/completions/upchirp.fish"""

Flags = Mapping[str, Sequence[str]]
"""The flags of a command, each with the values that it takes one of; none if it takes others."""


def print_script(words: Sequence[str], commands: Mapping[str, str]) -> None:
    """Print the script for a shell.

    Args:
        words: the shell's name, or what asks for help.
        commands: each with what it does.

    Raises:
        InputError: no shell, or another one.
    """
    if {"-h", "--help", "--help-all"} & set(words):
        print(_USAGE)
        return
    if len(words) != 1 or words[0] not in _SCRIPTS:
        said = f"there is no script for {' '.join(words)}" if words else "no shell is named"
        raise InputError(f"{said}: choose one of {', '.join(_SCRIPTS)}")
    print(_SCRIPTS[words[0]](commands, {name: flags_of(name) for name in commands}))


@cache
def flags_of(command: str) -> Flags:
    """What a command takes, by its own `--help-all`, which every command has and which needs no torch."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        importlib.import_module(f"upchirp.cli.{command}").run(["--help-all"])
    return flags_in(told.getvalue())


def flags_in(text: str) -> Flags:
    r"""The flags that a help lists, and their values.

    >>> flags_in("  --opt adamw|sgd  Optimizer.\n  --lr FLOAT  Its rate.\n  --recipe TEXT  Name.\n    One of a, b.")
    {'--help': [], '--help-all': [], '--opt': ['adamw', 'sgd'], '--lr': [], '--recipe': ['a', 'b']}
    """
    flags: dict[str, Sequence[str]] = {"--help": [], "--help-all": []}
    for entry in re.split(r"^  (?=--)", text, flags=re.MULTILINE)[1:]:
        flag, _, rest = entry.partition(" ")
        told = " ".join(rest.split())
        choice = re.match(r"[a-z][\w-]*(?:\|[a-z][\w-]*)+", told)
        listed = re.search(r"One of ([\w-]+(?:, [\w-]+)+)\.", told)
        flags[flag.strip()] = choice[0].split("|") if choice else listed[1].split(", ") if listed else []
    return flags


def _bash(what: Mapping[str, str], commands: Mapping[str, Flags]) -> str:
    values = [
        f'        "{command} {flag}") COMPREPLY=($(compgen -W "{" ".join(choices)}" -- "$word")); return ;;'
        for command, flags in commands.items()
        for flag, choices in flags.items()
        if choices
    ]
    flags = [f'        {command}) flags="{" ".join(flags)}" ;;' for command, flags in commands.items()]
    names = " ".join([*commands, "completion", "--help", "--version"])
    return "\n".join(
        [
            "_upchirp() {",
            '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" flags=""',
            "    COMPREPLY=()",
            '    if [ "$COMP_CWORD" -eq 1 ]; then',
            f'        COMPREPLY=($(compgen -W "{names}" -- "$word")); return',
            "    fi",
            '    case "${COMP_WORDS[1]} $before" in',
            *values,
            '        "completion completion") COMPREPLY=($(compgen -W "bash zsh fish" -- "$word")); return ;;',
            "    esac",
            '    case "${COMP_WORDS[1]}" in',
            *flags,
            "    esac",
            '    case "$word" in',
            '        -*) COMPREPLY=($(compgen -W "$flags" -- "$word")) ;;',
            "    esac",
            "}",
            # Other words are files.
            "complete -o default -F _upchirp upchirp",
        ]
    )


def _zsh(what: Mapping[str, str], commands: Mapping[str, Flags]) -> str:
    return "\n".join(
        ["autoload -U +X compinit && compinit", "autoload -U +X bashcompinit && bashcompinit", _bash(what, commands)]
    )


def _fish(what: Mapping[str, str], commands: Mapping[str, Flags]) -> str:
    told = {**what, "completion": "print such a script"}
    lines = [f"complete -c upchirp -f -n __fish_use_subcommand -a {name} -d '{text}'" for name, text in told.items()]
    for command, flags in commands.items():
        seen = f"complete -c upchirp -n '__fish_seen_subcommand_from {command}' -l"
        for flag, choices in flags.items():
            lines.append(f"{seen} {flag.removeprefix('--')}" + (f" -x -a '{' '.join(choices)}'" if choices else ""))
    lines.append("complete -c upchirp -f -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'")
    return "\n".join(lines)


_SCRIPTS = {"bash": _bash, "zsh": _zsh, "fish": _fish}

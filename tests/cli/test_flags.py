"""Messages name settings: a user of Python reads their names, a user of the command line flags."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import upchirp
from upchirp import InputError, TrainConfig
from upchirp.cli import main
from upchirp.cli.flags import with_flags
from upchirp.search import SearchConfig

ROOT = Path(upchirp.__file__).parent
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
WHOLE = re.compile(r"(sha256sum|docker run|torchrun) --[\w=-]+|upchirp train --curriculum THIS_FILE .*|`upchirp [^`]*`")
"""Commands that are to be pasted whole."""
NO_MESSAGES = {"reports/style.py", "training/folders/resumption.py", "timm/script.py"}
"""Variables of CSS, the commands that go on with a run, and the flags of another program."""


def strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """All strings of a program with their lines; values that are put into them are {}."""
    if isinstance(node, ast.JoinedStr):
        parts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        yield node.lineno, "".join(parts)
        nested = [part for part in node.values if isinstance(part, ast.FormattedValue)]
    else:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        nested = list(ast.iter_child_nodes(node))  # type: ignore[arg-type]
    for each in nested:
        yield from strings(each)


def test_the_library_names_no_flags() -> None:
    found = []
    for path in ROOT.rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("cli/") or name in NO_MESSAGES:
            continue
        for line, text in strings(ast.parse(path.read_text(encoding="utf-8"))):
            if flags := FLAG.findall(WHOLE.sub("", text)):
                found.append(f"{name}:{line}: {', '.join(flags)}")
    assert not found, "name settings as `batch_size`: " + "; ".join(found)


def test_settings_are_named_as_their_reader_knows_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"^`batch_size` is 0: it must be 1 or more$"):
        TrainConfig(batch_size=0)
    assert main(["train", "--batch-size", "0"]) == 2
    assert capsys.readouterr().err == "upchirp: error: --batch-size is 0: it must be 1 or more\n"
    with pytest.raises(InputError, match=r"^a search shares out epochs: give `epochs` instead of `time_budget`$"):
        SearchConfig(training=TrainConfig(time_budget="1h"))
    assert main(["search", "--time-budget", "1h"]) == 2
    assert "give --epochs instead of --time-budget" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("go on by `resume='auto'`", "go on by --resume auto"),
        ("`model_ema=False`, `deterministic=True`", "--no-model-ema, --deterministic"),
        ("`curricula=('constant', 'my own.yaml')`", "--curricula constant 'my own.yaml'"),
        ("try `lr=1e-03`", "try --lr 1e-03"),
        ("name it by `weights=FILE`", "name it by --weights FILE"),
        (
            "flags of one command: `verify`, `crop_pct=0.9`, `most_images`",
            "flags of one command: --verify, --crop-pct 0.9, --most-images",
        ),
        ("`upchirp pack` and `classes` are none", "`upchirp pack` and `classes` are none"),
    ],
)
def test_flags_take_the_place_of_settings(message: str, shown: str) -> None:
    assert with_flags(message) == shown

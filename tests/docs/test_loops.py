"""The loops and hooks that the documentation shows run as they are pasted."""

import re
import sys
import types
from pathlib import Path
from typing import get_args

import pytest

from upchirp.training import Event

ROOT = Path(__file__).parents[2]


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def loops():
    return [block for block in blocks(ROOT / "README.md") if block.startswith("import ")]


def smaller(program, **replacements):
    """The program with other constants, so that it takes seconds."""
    for old, new in replacements.values():
        assert program.count(old) == 1, old
        program = program.replace(old, new)
    return program


@pytest.fixture
def workplace(image_folder, tmp_path, monkeypatch):
    (tmp_path / "data").symlink_to(image_folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_loop_of_the_readme_runs(workplace, capsys):
    program = smaller(
        loops()[0], model=('"resnet18"', '"test_resnet"'), size=('"data", 224', '"data", 64'),
        epochs=("epochs=20", "epochs=4"), workers=("=augmentation)", "=augmentation, workers=0)"),
        val=("val, SIZE", "val, SIZE, workers=0"),
    )  # fmt: skip
    # A worker that is spawned imports the program.
    exec(compile(program, "README.md", "exec"), {"__name__": "__mp_main__"})
    assert not capsys.readouterr().out
    exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})
    first, *_, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"0%, \d\d px: loss \d\.\d\d", first)
    assert re.fullmatch(r"top-1 \d+\.\d %", last)


def test_three_lines_around_a_loader_of_one_s_own_run():
    place = {}
    program = smaller(loops()[1], images=("FakeData(256", "FakeData(64"), depth=("depth=2", "depth=1"))
    exec(compile(program, "README.md", "exec"), place)
    assert place["step"].index == place["plan"].total_steps - 1
    assert place["model"].pos_embed.shape[1] == 1 + 8 * 8
    assert place["loss"].isfinite()


def test_the_hook_for_weights_and_biases_runs(workplace, monkeypatch):
    (program,) = blocks(ROOT / "docs" / "observers.md")
    logged, calls = {}, []
    fake = types.ModuleType("wandb")
    fake.init = lambda **settings: calls.append(settings["project"])
    fake.log = logged.update
    fake.finish = lambda: calls.append("finished")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    program = smaller(
        program, model=('"model": "resnet18"', '"model": "test_vit", "final_size": 64, "epochs": 2, "batch_size": 32'),
        output=('"output":', '"workers": 0, "recipe": "light", "device": "cpu", "evaluations": 1, "output":'),
    )  # fmt: skip
    exec(compile(program, "observers.md", "exec"), {"__name__": "__main__"})
    assert calls == ["upchirp", "finished"]
    assert logged.keys() == {"loss", "bandwidth", "images/s", "top1/model/64px"}


def test_what_is_shown_of_other_trainers_is_taken_from_programs_that_run():
    text = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
    parts = [part for part in text.split("\n## ")[1:] if "```" in part]
    assert len(parts) == 6
    for part in parts:
        name = re.findall(r"\(\.\./(examples/\w+\.\w+)\)", part)[0]
        (block,) = re.findall(r"^```(?:python|diff)\n(.*?)^```", part, re.DOTALL | re.MULTILINE)
        program = (ROOT / name).read_text(encoding="utf-8")
        if name.endswith(".patch"):
            # Without the lines that say where each change goes.
            program = (
                "".join(re.findall(r"^[+ ](?!\+).*\n", program, re.MULTILINE)).replace("\n \n", "\n\n").lstrip(" \n")
            )
            block = block.replace("\n\n     )", "\n     )")
        assert block in program, name


def test_the_table_of_events_is_complete():
    shown = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "observers.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(shown) == sorted(event.__name__ for event in get_args(Event))

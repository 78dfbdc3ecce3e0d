"""A search on real photographs; two workers, a kill and a resume on the way change nothing of its answer."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.processes import python, with_server

from upchirp import load_curriculum
from upchirp.search import SearchConfig, search
from upchirp.search.journal import Journal

pytestmark = pytest.mark.slow

SETTINGS = {
    "model": "test_resnet", "final_size": 64, "recipe": "light", "lr": 8e-3, "epochs": 4, "batch_size": 32,
    "workers": 0, "device": "cpu", "stages": 3,
}  # fmt: skip
LISTS = {"candidates": (32, 64), "model_kwargs": {"channels": (8, 16, 16, 32), "stem_width": 8}}


def outcomes(folder: Path) -> dict[str, tuple[float, float]]:
    trials = Journal(folder / "journal.jsonl").of("trial")
    return {trial["name"]: (trial["accuracy"], trial["loss"]) for trial in trials}


def command(data: Path, output: Path) -> list[str]:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    model = ["channels=[8,16,16,32]", "stem_width=8"]
    return [
        python(), "-m", "upchirp", "search", *flags, "--candidates", "32", "64", "--candidates-at-once", "2",
        "--model-kwargs", *model, "--data", str(data), "--output", str(output),
    ]  # fmt: skip


def test_a_search_on_photographs_killed_and_resumed_with_two_workers(photographs: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    result = search(SearchConfig.from_flat({**SETTINGS, **LISTS, "data": str(photographs), "output": str(alone)}))
    chance = 100 / len(list((photographs / "train").iterdir()))
    assert max(accuracy for accuracy, _ in outcomes(alone).values()) > chance
    assert load_curriculum(alone / "curriculum.yaml", 64) == result.curriculum

    together = tmp_path / "together"
    words = command(photographs, together)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=with_server()) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if (together / "journal.jsonl").exists() and outcomes(together):
                break
            time.sleep(0.01)
        # Only the search itself: its workers have to notice that it is gone.
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
    known = outcomes(together)
    assert known and len(known) < 4
    time.sleep(1.0)
    files = sorted((together / "states").rglob("*"))
    times = [path.stat().st_mtime_ns for path in files]
    time.sleep(1.0)
    assert [path.stat().st_mtime_ns for path in sorted((together / "states").rglob("*"))] == times, "nobody goes on"

    subprocess.run([*words, "--resume", "auto"], check=True, env=with_server(), stdout=subprocess.DEVNULL)
    assert outcomes(together) == outcomes(alone)
    lines = (together / "journal.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 4, "what was finished was not trained again"
    assert load_curriculum(together / "curriculum.yaml", 64) == result.curriculum
    assert (together / "report.html").exists()

"""Ctrl-C before there is anything to lose: one line and exit code 130, whatever is being imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = "import sys; from upchirp.cli import main; sys.exit(main())"
INTERRUPTED = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(1)
{handled}
"""
SWALLOWED = """except BaseException as error:
    raise ImportError("as C extensions say when they are interrupted") from error"""


@pytest.mark.parametrize(
    "start", [["-m", "upchirp"], ["-c", "import sys; from upchirp.cli import main; sys.exit(main())"]]
)
@pytest.mark.parametrize(
    ("module", "handled"), [("difflib", "finally: pass"), ("tyro", "finally: pass"), ("torch", SWALLOWED)]
)
def test_ctrl_c_during_imports(tmp_path: Path, start: list[str], module: str, handled: str) -> None:
    (tmp_path / f"{module}.py").write_text(INTERRUPTED.format(handled=handled))
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, *start, "train", "--data", "nowhere"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("upchirp: interrupted\n", 130)

"""Why a loader worker died, in one line that says what to do."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from upchirp.errors import InputError

# torch has no exception type of its own for this.
_DIED = re.compile(
    r"DataLoader worker \((?P<pids>pid\S* [\d, ]+)\) "
    r"(?:is killed by signal: (?P<signal>[^.]*)|exited unexpectedly(?: with exit code (?P<code>\d+))?)"
)
_NO_ROOM = re.compile(r"unable to (?:allocate shared memory|write to file </torch)|could not resize.*shared memory")

_SHARED_MEMORY = (
    "found no room in shared memory (/dev/shm): give the container more (docker run --shm-size=8g), or take fewer "
    "`workers`"
)


class LoaderFailure(InputError):
    """The loader's workers died or stalled."""


@contextmanager
def loader_failures() -> Iterator[None]:
    """Turn what torch says of a dead worker into one line.

    torch notices it in a signal handler, so its error may come out of anything that the process does.

    Raises:
        LoaderFailure: that line.
    """
    try:
        yield
    except RuntimeError as error:
        if line := told(error, starting=False):
            raise LoaderFailure(line) from error
        raise


def told(error: BaseException, *, starting: bool) -> str | None:
    """The line on a worker's death that torch reports by an error; nothing if the error is of another kind.

    `starting` says that the workers are started by importing the script, and have not given a batch yet.

    >>> told(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), starting=False)
    'a loader worker (pid 7) was killed, mostly because memory ran out: give fewer `workers`, or make room'
    """
    message = str(error)
    if _NO_ROOM.search(message):
        return f"a loader worker {_SHARED_MEMORY}"
    if (died := _DIED.match(message)) is None:
        return None
    code = int(died["code"]) if died["code"] else None
    if died["signal"]:
        code = next((-number for number in signal.valid_signals() if signal.strsignal(number) == died["signal"]), None)
    return line(f"({died['pids']})", code, starting=starting)


def line(which: str, code: int | None, *, starting: bool) -> str:
    """The line on the death of a worker by its exit code, which is the negative signal that killed it.

    >>> line("(pid 7)", 1, starting=True)  # doctest: +ELLIPSIS
    'a loader worker (pid 7) could not start: it imports your script anew, so put the loop under `if __name__ == ...
    """
    worker = f"a loader worker {which}"
    killer = signal.strsignal(-code) if code is not None and code < 0 else None
    if killer and killer.startswith("Bus error"):
        return f"{worker} {_SHARED_MEMORY}"
    if killer and killer.startswith("Killed"):
        return f"{worker} was killed, mostly because memory ran out: give fewer `workers`, or make room"
    if killer:
        return (
            f"{worker} died ({killer}): a library that reads the data crashed, perhaps on a damaged file, or somebody "
            "ended it"
        )
    if starting and code == 1:
        return (
            f"{worker} could not start: it imports your script anew, so put the loop under "
            '`if __name__ == "__main__":`, and a class of data that a notebook defines into a module; or load without '
            "workers"
        )
    return (
        f"{worker} ended with exit code {'unknown' if code is None else code}: what it printed says why; without "
        "workers (`workers=0`) the error comes as it is"
    )

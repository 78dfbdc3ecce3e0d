import errno
from pathlib import Path

import pytest

from upchirp.files import clear_leftovers, whole_file, whole_path, write_text


@pytest.mark.parametrize("durable", [True, False])
def test_an_error_leaves_the_file_before_and_nothing_else(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "before\n", durable=durable)
    with pytest.raises(OSError, match=r"note\.txt.$") as caught, whole_file(path, durable=durable) as stream:
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", "note.txt.17.tmp")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("note.txt", "before\n")]


def test_what_a_killed_writer_left_is_cleared(tmp_path: Path) -> None:
    with whole_path(tmp_path / "note") as temporary:
        temporary.write_text("whole")
        other = temporary.rename(temporary.with_name("note.17.tmp"))
        temporary.write_text("whole")
    clear_leftovers(tmp_path)
    assert not other.exists()
    assert [each.name for each in tmp_path.iterdir()] == ["note"]

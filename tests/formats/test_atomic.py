"""Output files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from inrcodec_formats.atomic import atomic_output
from inrcodec_formats.errors import FormatError, OutputError


def test_the_file_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    with atomic_output(str(target)) as out:
        out.write(b"half")
        assert not target.exists()
        out.write(b" whole")
    assert target.read_bytes() == b"half whole" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("failure", [ValueError("x"), KeyboardInterrupt(), OSError(errno.ENOENT, "x"), FormatError("x")])
def test_failures_pass_through_and_keep_the_old_content(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(type(failure)) as raised, atomic_output(target) as out:
        out.write(b"new")
        raise failure
    assert raised.value is failure
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, call, full)
    with pytest.raises(OutputError, match="No space left"), atomic_output(target) as out:
        out.write(b"new")
    monkeypatch.undo()
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_unusable_targets(tmp_path: Path) -> None:
    for target, words in ((tmp_path, "folder"), (tmp_path / "no" / "a", "create it"), (Path(os.devnull), "device")):
        with pytest.raises(OutputError, match=words) as error, atomic_output(target):
            pass
        assert "\n" not in str(error.value) and isinstance(error.value, OSError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_read_only_folder_and_file(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "file").chmod(0o400)
    locked.chmod(0o500)
    for target in (locked / "a", tmp_path / "file"):
        with pytest.raises(OutputError), atomic_output(target):
            pass
    locked.chmod(0o700)


@pytest.mark.skipif(os.name != "posix", reason="modes and links of POSIX")
def test_mode_and_links_of_the_replaced_file_are_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "a.bin", tmp_path / "link"
    target.touch()
    target.chmod(0o640)
    link.symlink_to(target)
    with atomic_output(link) as out:
        out.write(b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640

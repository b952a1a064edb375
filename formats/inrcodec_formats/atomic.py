"""Output files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import InrcodecError, OutputError

_DEVICE_FAILURES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open `path` for writing so that it changes only when everything has been written.

    The bytes go to a temporary file in the same folder, which is synchronised to disk and renamed over `path`
    on success. After any exception, `KeyboardInterrupt` included, the temporary file is gone and an older file
    at `path` is untouched. A symbolic link is followed, and the mode of a replaced file is kept.

    Parameters
    ----------
    path : str or os.PathLike
        File to create or replace.

    Yields
    ------
    binary file object
        Writable and seekable; closed by the context manager.

    Raises
    ------
    OutputError
        If the folder is missing or unwritable, the target is a directory, a device or read-only, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    _require_replaceable(target)
    temporary = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        # Plain "xb" rather than mkstemp: the file gets the permissions that the umask asks for, not 0600.
        stream = open(temporary, "xb")  # noqa: SIM115 - its failure is told apart from failures inside the with block
    except OSError as error:
        raise _output_error(target, error) from error
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # Only failures of the device belong to the output; other errors come from whoever produced the bytes.
        if isinstance(error, OSError) and not isinstance(error, InrcodecError) and error.errno in _DEVICE_FAILURES:
            raise _output_error(target, error) from error
        raise


def _require_replaceable(target: Path) -> None:
    if target.is_dir():
        raise OutputError(f"expected a file name to write, found the folder {target}; add a file name")
    if not target.parent.is_dir():
        raise OutputError(f"expected a folder for {target.name}, found none at {target.parent}; create it first")
    if target.exists() and not target.is_file():
        raise OutputError(f"expected a regular file to replace, found a device or pipe at {target}; pick another name")
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"expected a writable file, found {target} read-only; change its mode or choose another name")


def _output_error(target: Path, error: OSError) -> OutputError:
    reason = error.strerror or type(error).__name__
    return OutputError(f"expected to write {target}, found: {reason}; free space or choose a writable folder")

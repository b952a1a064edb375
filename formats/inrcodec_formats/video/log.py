"""What FFmpeg says only in its log."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

# FFmpeg's log has one level for the whole process.
_LOCK = threading.Lock()


@contextmanager
def overheard(level: Literal["error", "info"]) -> Iterator[list[str]]:
    """Collect what FFmpeg logs on this thread meanwhile; the list is filled at the end."""
    import av.logging

    heard: list[str] = []
    with _LOCK:
        before = av.logging.get_level()
        av.logging.set_level(av.logging.INFO if level == "info" else av.logging.ERROR)
        try:
            with av.logging.Capture() as lines:
                yield heard
            heard += [message for _, _, message in lines]
        finally:
            av.logging.set_level(before)

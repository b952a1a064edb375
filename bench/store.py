"""Rows of measurements in one CSV file: appended as soon as they exist, never measured twice."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Store:
    """A CSV file that survives being stopped at any moment.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        All columns; a file with others is refused.
    key : sequence of str
        Columns that identify a measurement.

    Raises
    ------
    ValueError
        If the file has other columns.
    """

    def __init__(self, path: Path, columns: Sequence[str], key: Sequence[str]) -> None:
        self.path, self.columns, self.key = path, tuple(columns), tuple(key)
        self.rows: list[Row] = []
        self._keys: set[tuple[str, ...]] = set()
        if path.exists():
            self._load()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(self._line(self.columns))

    def has(self, row: Row) -> bool:
        """Whether a row with the same key was measured before."""
        return self._key_of(row) in self._keys

    def append(self, row: Row) -> None:
        """Write one row to the disk at once."""
        text = {name: _text(row.get(name)) for name in self.columns}
        self._write(self._line(text[name] for name in self.columns))
        self.rows.append(text)
        self._keys.add(self._key_of(text))

    def _load(self) -> None:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:  # stopped in the middle of a row
            os.truncate(self.path, len(whole))
        reader = csv.DictReader(io.StringIO(whole.decode("utf-8"), newline=""))
        if tuple(reader.fieldnames or ()) != self.columns:
            raise ValueError(f"{self.path}: expected the columns {', '.join(self.columns)}, found others; choose another --out")
        self.rows = list(reader)
        self._keys = {self._key_of(row) for row in self.rows}

    def _key_of(self, row: Row) -> tuple[str, ...]:
        return tuple(_text(row.get(name)) for name in self.key)

    @staticmethod
    def _line(cells: Iterable[str]) -> str:
        out = io.StringIO(newline="")
        csv.writer(out, lineterminator="\n").writerow(cells)
        return out.getvalue()

    def _write(self, line: str) -> None:
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace("\n", " ")

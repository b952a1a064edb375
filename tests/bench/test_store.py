"""Rows on the disk: kept at once, never measured twice, and whole after a stop at any byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.store import Store

COLUMNS = ("signal", "target", "status", "reason")
KEY = ("signal", "target")


def row(signal: str, target: float, reason: str = "") -> dict[str, object]:
    return {"signal": signal, "target": target, "status": "ok", "reason": reason}


def test_rows_come_back_and_are_known(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "a.csv", COLUMNS, KEY)
    store.append(row("ct", 0.0312500001, 'comma, "quote"\nand a line'))
    again = Store(tmp_path / "new" / "a.csv", COLUMNS, KEY)
    assert again.has(row("ct", 0.03125)) and not again.has(row("ct", 0.04)) and not again.has(row("em", 0.03125))
    assert again.rows == [{"signal": "ct", "target": "0.03125", "status": "ok", "reason": 'comma, "quote" and a line'}]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 60))
def test_a_torn_last_row_is_measured_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.csv"
    path.unlink(missing_ok=True)
    store = Store(path, COLUMNS, KEY)
    for target in (1.0, 2.0, 3.0):
        store.append(row("ct", target))
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    path.write_bytes(whole[: max(header, len(whole) - cut)])
    again = Store(path, COLUMNS, KEY)
    kept = path.read_bytes()
    assert kept == b"" or kept.endswith(b"\n")
    assert all(again.has(row("ct", float(r["target"]))) for r in again.rows)
    for target in (1.0, 2.0, 3.0):
        if not again.has(row("ct", target)):
            again.append(row("ct", target))
    assert path.read_bytes() == whole


def test_a_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match="expected the columns signal"):
        Store(tmp_path / "a.csv", COLUMNS, KEY)

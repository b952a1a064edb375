"""All chunks in one launch, against the reference chunk by chunk. Run by `test_rans_triton.py`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from inrcodec_kernels.rans import BandCode, CodedError, Tables, proportional, reference, triton

from ..band_codes import band_code, leaves
from .device import DEVICE

Leaf = tuple[list[int], int]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """What `torch.empty` returns is filled with the largest numbers."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def expected(code: BandCode, lanes: int, data: bytes, level: np.ndarray) -> list[Leaf] | None:
    """Each leaf's coefficients and bands; None if the chunk is refused."""
    try:
        values, kept = reference.decode_chunk(np.frombuffer(data, dtype=np.uint8), lanes, level, code)
    except CodedError:
        return None
    return by_leaf(code, values, kept, level, code.rows(level))


def found(
    code: BandCode, lanes: int, chunks: list[bytes], levels: list[np.ndarray], dtype: torch.dtype = torch.int64
) -> list[list[Leaf] | None]:
    """The same of all chunks, decoded in one launch; rows of a level lie together, whatever their chunk."""
    level = np.concatenate(levels)
    rows, first = code.rows(level), np.cumsum([0, *map(len, levels)])
    # Bytes before the first chunk and behind the last one are none of theirs.
    begin = torch.from_numpy(3 + np.cumsum([0, *map(len, chunks)])).to(DEVICE)
    data = torch.frombuffer(bytearray(b"\xff" * 3 + b"".join(chunks) + b"\xff" * 3), dtype=torch.uint8).to(DEVICE)
    level_of, first_of, row_of = (torch.from_numpy(array).to(DEVICE) for array in (level, first, rows[:-1]))
    decoded = triton.decode_chunks(
        data, begin, lanes, level_of.to(dtype), first_of, triton.DeviceCode.of(code, DEVICE), row_of, int(rows[-1])
    )
    values, kept, failed = (part.cpu() for part in decoded)
    assert values.dtype == kept.dtype == torch.int32 and failed.dtype == torch.bool
    every = by_leaf(code, values.numpy(), kept.numpy(), level, rows)
    return [None if wrong else every[a:b] for wrong, a, b in zip(failed.tolist(), first[:-1], first[1:], strict=True)]


def by_leaf(code: BandCode, values: np.ndarray, kept: np.ndarray, level: np.ndarray, rows: np.ndarray) -> list[Leaf]:
    sizes = code.width[level] + 1
    return [(values[row : row + size].tolist(), int(k)) for row, size, k in zip(rows[:-1], sizes, kept, strict=True)]


def encoded(
    code: BandCode, lanes: int, counts: list[int], seed: int, largest: float
) -> tuple[list[bytes], list[np.ndarray]]:
    parts = [leaves(code, count, seed + i, largest) for i, count in enumerate(counts)]
    chunks = [reference.encode_chunk(values, kept, lanes, level, code) for level, values, kept in parts]
    return chunks, [level for level, _, _ in parts]


@pytest.mark.parametrize(
    ("lanes", "levels", "counts", "largest", "dtype"),
    [
        (1, 1, [2, 1], 0.4, torch.int64),
        (2, 2, [3, 0, 1], 3.0, torch.int32),
        (3, 3, [4], 1.0, torch.int64),
        (8, 2, [9, 4], 1e3, torch.int64),
        (32, 3, [12, 1], 1e8, torch.int32),
    ],
)
def test_chunks_come_back(lanes: int, levels: int, counts: list[int], largest: float, dtype: torch.dtype) -> None:
    code = band_code(levels, lanes)
    chunks, level = encoded(code, lanes, counts, 100 * lanes, largest)
    wanted = [expected(code, lanes, *chunk) for chunk in zip(chunks, level, strict=True)]
    assert None not in wanted
    assert found(code, lanes, chunks, level, dtype) == wanted


def test_what_is_expected_of_a_constant_may_be_beyond_all_constants() -> None:
    code = band_code(2, 5)
    code = code._replace(ratios=code.ratios << 4)
    level, values, kept = leaves(code, 6, 7, 3.0)
    values[code.rows(level)[:-1]] = [2**30, 2**28, -(2**30), 2**30, -(2**30), 5]
    chunk = reference.encode_chunk(values, kept, 2, level, code)
    wanted = expected(code, 2, chunk, level)
    assert wanted is not None and wanted == by_leaf(code, values, kept, level, code.rows(level))
    assert found(code, 2, [chunk], [level]) == [wanted]


def test_more_leaves_than_are_listed_together() -> None:
    code = band_code(1, 5)
    chunks, level = encoded(code, 32, [triton.LEAVES + 5], 6, 1.0)
    assert found(code, 32, chunks, level) == [expected(code, 32, chunks[0], level[0])]


def test_long_tables_are_searched_to_the_end() -> None:
    """Up to 255 symbols, many of which share the first eight bits of their slots, some of frequency 0."""
    random, code = np.random.default_rng(3), band_code(2, 3)
    magnitudes = []
    for size in (255, 201, 61, 21):
        magnitudes.append(proportional(random.integers(1, 9, size) ** 6 * (np.arange(size) % 8 != 7)))
    others = [np.diff(row.astype(np.int64)) for row in code.tables.starts[len(magnitudes) :]]
    escape = np.array([len(m) - 1 for m in magnitudes] + code.escape[len(magnitudes) :].tolist(), dtype=np.int32)
    code = code._replace(tables=Tables.of([*magnitudes, *(f[f > 0] for f in others)]), escape=escape)
    level, values, kept = leaves(code, 12, 4, 60.0)
    values -= np.sign(values) * (np.abs(values) % 8 == 7)
    chunk = reference.encode_chunk(values, kept, 16, level, code)
    assert refused_alike(code, 16, [chunk], [level]) == [False]


def refused_alike(code: BandCode, lanes: int, chunks: list[bytes], levels: list[np.ndarray]) -> list[bool]:
    """Which chunks are refused, by both."""
    wanted = [expected(code, lanes, *chunk) for chunk in zip(chunks, levels, strict=True)]
    assert found(code, lanes, chunks, levels) == wanted
    return [chunk is None for chunk in wanted]


def test_garbage() -> None:
    random, code = np.random.default_rng(8), band_code(2, 7)
    chunks = [random.bytes(size) for size in (0, 7, 8, 9, 40, 120)] + [b"\0" * 50]
    assert all(refused_alike(code, 2, chunks, [random.integers(0, 2, 3) for _ in chunks]))


def test_truncated_and_longer_chunks() -> None:
    code = band_code(2, 1)
    (data,), (level,) = encoded(code, 4, [3], 2, 0.5)
    chunks = [data, *(data[:size] for size in range(0, len(data), 9)), data[:-1], data[1:], data + b"\0", b"\0" + data]
    assert refused_alike(code, 4, chunks, [level] * len(chunks)) == [False] + [True] * (len(chunks) - 1)


@pytest.mark.slow
def test_changed_bits() -> None:
    """Those of signs cannot be seen; those of states, words and the lengths of escapes are."""
    code = band_code(1, 4)
    (data,), (level,) = encoded(code, 2, [2], 9, 1e3)
    chunks = []
    for bit in range(5, 8 * len(data), 8 * len(data) // 20):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        chunks.append(bytes(changed))
    refused = refused_alike(code, 2, chunks, [level] * len(chunks))
    assert any(refused) and not all(refused)


def test_numbers_out_of_range() -> None:
    """A constant's prediction, or an escape's excess, may lead beyond 32 bits."""
    code, level, kept = band_code(1, 2), np.zeros(2, dtype=np.int64), np.array([0, 1])
    flat = code._replace(ratios=code.ratios * 0)
    values = np.zeros(code.rows(level)[-1], dtype=np.int64)
    values[code.rows(level)[:-1]] = 2**31 - 1, 2**30
    chunks = []
    for coefficient in (2**31 - 1, 1 - 2**31, 2**31, -(2**31)):
        values[code.rows(level)[1] + 1] = coefficient
        chunks.append(reference.encode_chunk(values, kept, 2, level, flat))
    assert refused_alike(flat, 2, chunks, [level] * 4) == [False, False, True, True]
    for ratio in (1 << 16, 1 << 28):
        assert refused_alike(flat._replace(ratios=flat.ratios + ratio), 2, chunks[:1], [level]) == [True]


def test_what_cannot_be_decoded_together() -> None:
    code = triton.DeviceCode.of(band_code(1, 1), DEVICE)
    data, ends = torch.zeros(9, dtype=torch.uint8, device=DEVICE), torch.tensor([0, 9], device=DEVICE)
    leaf = torch.tensor([0], device=DEVICE)
    for lanes in (0, 33):
        with pytest.raises(ValueError, match=rf"expected 1\.\.32 lanes, found {lanes}"):
            triton.decode_chunks(data, ends, lanes, leaf, torch.tensor([0, 1]), code, leaf, 10)
    with pytest.raises(ValueError, match=r"found torch\.uint8, 1 and 2, 1 and 1"):
        triton.decode_chunks(data, ends, 1, leaf, torch.tensor([0, 1, 1]), code, leaf, 10)
    assert len(triton.decode_chunks(data, ends[:1], 1, leaf[:0], ends[:1], code, leaf[:0], 0)[2]) == 0

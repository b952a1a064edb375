"""Audio and data streams as bytes: the section ``OTHR``. Byte layout: ``docs/container.md``."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate, pairwise

from inrcodec_formats.errors import ContainerError
from inrcodec_formats.records import Record, text, varint
from inrcodec_formats.video.streams import OtherStream, StreamPacket
from inrcodec_formats.zstd import compress, decompress_bounded

MOST_STREAMS, MOST_PACKETS, MOST_METADATA = 32, 1 << 20, 64
_MOST_TIME = 1 << 62
_ROW_BYTES = 41
"""Most that the table has for a packet: a byte and four varints."""
_KEY, _NO_PTS, _NO_DTS = 1, 2, 4
_COPY = "get a fresh copy of the file"


def pack_streams(streams: tuple[OtherStream, ...]) -> bytes:
    """Serialise; the inverse of `unpack_streams`.

    Raises
    ------
    ContainerError
        If there are more streams or packets than a file may carry.
    """
    longest = max((len(stream.packets) for stream in streams), default=0)
    if len(streams) > MOST_STREAMS or longest > MOST_PACKETS:
        raise ContainerError(
            f"expected at most {MOST_STREAMS} audio and data streams of {MOST_PACKETS} packets, found {len(streams)} of up to {longest}; "
            "leave them out with audio=False"
        )
    return varint(len(streams)) + b"".join(map(_packed, streams))


def unpack_streams(data: bytes) -> tuple[OtherStream, ...]:
    """Parse what `pack_streams` wrote.

    Raises
    ------
    ContainerError
        For anything else.
    """
    record = Record(data)
    streams = tuple(_unpacked(record) for _ in range(_count(record, MOST_STREAMS, "streams")))
    record.finish()
    return streams


def _packed(stream: OtherStream) -> bytes:
    out = text(stream.kind) + text(stream.codec) + _block(stream.template)
    out += varint(stream.time_base.numerator) + varint(stream.time_base.denominator)
    out += varint(len(stream.metadata))
    out += b"".join(_block(word.encode()) for pair in sorted(stream.metadata.items()) for word in pair)
    out += varint(len(stream.packets)) + _block(compress(_table(stream.packets)))
    return out + b"".join(packet.data for packet in stream.packets)


def _unpacked(record: Record) -> OtherStream:
    kind, codec, template = record.text(), record.text(), record.take(record.varint())
    numerator, denominator = record.varint(), record.varint()
    if not (numerator and denominator):
        raise ContainerError(f"expected a time base above zero, found {numerator}/{denominator}; {_COPY}")
    words = [_word(record) for _ in range(2 * _count(record, MOST_METADATA, "metadata"))]
    packets = _count(record, MOST_PACKETS, "packets")
    table = Record(decompress_bounded(record.take(record.varint()), packets * _ROW_BYTES))
    return OtherStream(
        kind=kind,
        codec=codec,
        template=template,
        time_base=Fraction(numerator, denominator),
        packets=_packets(table, packets, record),
        metadata=dict(zip(words[::2], words[1::2], strict=True)),
    )


def _table(packets: tuple[StreamPacket, ...]) -> bytes:
    """A row for each packet: flags, step of the decoding time, presentation after it, duration, length."""
    rows, before = bytearray(), 0
    for packet in packets:
        flags = _KEY * packet.is_key | _NO_PTS * (packet.pts is None) | _NO_DTS * (packet.dts is None)
        dts = before if packet.dts is None else packet.dts
        shown = dts if packet.pts is None else packet.pts
        rows += bytes((flags,)) + _signed(dts - before) + _signed(shown - dts)
        rows += varint(packet.duration) + varint(len(packet.data))
        before = dts
    return bytes(rows)


def _packets(table: Record, count: int, record: Record) -> tuple[StreamPacket, ...]:
    """Packets whose rows are in a table, and whose bytes follow in the record."""
    rows, dts = [], 0
    for _ in range(count):
        flags = table.byte()
        if flags > _KEY | _NO_PTS | _NO_DTS:
            raise ContainerError(f"expected flags of a packet within 0x07, found {flags:#04x}; get a newer inrcodec")
        dts += _read_signed(table)
        pts = dts + _read_signed(table)
        rows.append((flags, dts, pts, table.varint(), table.varint()))
        if max(abs(dts), abs(pts), rows[-1][3]) >= _MOST_TIME:
            raise ContainerError(f"expected times of packets below 2**62, found {rows[-1][1:4]}; {_COPY}")
    table.finish()
    edges = accumulate((row[-1] for row in rows), initial=0)
    data = record.take(sum(row[-1] for row in rows))
    return tuple(
        StreamPacket(
            data[a:b], None if flags & _NO_PTS else pts, None if flags & _NO_DTS else dts, length, bool(flags & _KEY)
        )
        for (flags, dts, pts, length, _), (a, b) in zip(rows, pairwise(edges), strict=True)
    )


def _block(data: bytes) -> bytes:
    return varint(len(data)) + data


def _word(record: Record) -> str:
    try:
        return record.take(record.varint()).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ContainerError(f"expected UTF-8 text in the section OTHR, found other bytes; {_COPY}") from error


def _count(record: Record, most: int, what: str) -> int:
    found = record.varint()
    if found > most:
        raise ContainerError(f"expected at most {most} {what} in the section OTHR, found {found}; {_COPY}")
    return found


def _signed(value: int) -> bytes:
    return varint(2 * value if value >= 0 else -2 * value - 1)


def _read_signed(record: Record) -> int:
    found = record.varint()
    return found // 2 if found % 2 == 0 else -(found // 2) - 1

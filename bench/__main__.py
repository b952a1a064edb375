"""Entry points: ``python -m bench rd|report|throughput|lossless|readme``."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from .peers import METHODS, PEERS, PeerError, make_peer
from .signals import SignalReadError, load_signal

ALL_PEERS = ("x265:slow", "x265:veryslow", "x264", "svtav1", "jpeg2000", "jpeg2000:volume", "htj2k", "jpegxl", "jpegls", "sperr", "sz3", "zfp")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit code."""
    options = _parser().parse_args(arguments)
    options.command_line = "python -m bench " + shlex.join(_shortened(arguments or sys.argv[1:]))
    try:
        return options.run(options)
    except (SignalReadError, PeerError, ValueError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: stopped; everything measured is kept, the same command goes on from here", file=sys.stderr)
        return 130


def _shortened(arguments: Sequence[str]) -> list[str]:
    """Paths by their last part: a command in a report should not name this machine's folders."""
    return [Path(word).name if os.sep in word and Path(word).exists() else word for word in arguments]


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",") if number]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Fair measurements against other codecs.")
    commands = parser.add_subparsers(dest="command", required=True)
    rd = commands.add_parser("rd", help="rate–distortion curves, BD-rates, plots; resumable")
    _common(rd, ",".join(ALL_PEERS))
    rd.add_argument("--rates", type=_numbers, default=(), help="target bits/voxel of the peers")
    rd.add_argument("--ratios", type=_numbers, default=(), help="target ratios of our methods")
    rd.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="curves side by side, one thread each")
    rd.set_defaults(run=_run_rd)
    report = commands.add_parser("report", help="write the report of an rd run again, from its CSV")
    report.add_argument("--out", type=Path, required=True)
    report.set_defaults(run=_run_report)
    return parser


def _common(parser: argparse.ArgumentParser, peers: str) -> None:
    parser.add_argument("--signals", nargs="+", required=True, metavar="PATH", help="files, example4d or synthetic:EDGE")
    parser.add_argument("--peers", type=_names, default=_names(peers), help=f"out of {', '.join(PEERS)}; name:preset for a preset")
    parser.add_argument("--methods", type=_names, default=list(METHODS), help=f"ours, out of {', '.join(METHODS)}; '' for none")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")


def _specs(options: argparse.Namespace) -> list[str]:
    """Checked names, before anything long begins: ours first."""
    names = [*options.methods, *options.peers]
    for name in names:
        make_peer(name)
    for spec in options.signals:
        load_signal(spec)
    return names


def _run_rd(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from . import rd
    from .store import Row, Store

    names = _specs(options)
    store = Store(options.out / "rd.csv", rd.COLUMNS, rd.KEY)
    console = Console(highlight=False)
    curves = rd.plan(options.signals, names, options.rates, options.ratios, store, console.print)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("measuring", total=sum(len(curve.targets) for curve in curves))

        def on_row(row: Row) -> None:
            progress.console.print(_row_line(row))
            progress.advance(task)

        rd.Runner(store, max(1, options.jobs), on_row).run(curves)
    _write_command(options)
    return _run_report(options)


def _row_line(row: dict[str, object]) -> str:
    start = f"{row['signal']} {row['peer']} at {float(row['target']):.3g}: "  # type: ignore[arg-type]
    if row["status"] != "ok":
        return start + f"{row['status']}, {row['reason']}"
    return start + f"{row['bits_per_voxel']:.4f} bits/voxel, {row['psnr_db']:.2f} dB, {row['encode_s']:.1f} s"


def _write_command(options: argparse.Namespace) -> None:
    (options.out / "rd_command.txt").write_text(options.command_line + "\n", encoding="utf-8")


def _run_report(options: argparse.Namespace) -> int:
    from . import rd
    from .report import headline, write_report
    from .store import Store

    path = options.out / "rd.csv"
    if not path.is_file():
        raise ValueError(f"expected rd.csv in {options.out}, found none; run `python -m bench rd` first")
    store = Store(path, rd.COLUMNS, rd.KEY)
    saved = options.out / "rd_command.txt"
    written = write_report(options.out, store.rows, saved.read_text("utf-8").strip() if saved.exists() else "")
    from .report import curves_of, latest

    rows = latest(store.rows)
    print("\n".join(headline(curves_of(rows), {row["signal"]: row["kind"] for row in rows})))
    print(f"Written: {written}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

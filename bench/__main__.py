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
TIMED_PEERS = ("x265:slow", "x264:medium", "svtav1:6", "jpeg2000", "htj2k", "jpegxl", "jpegls", "sperr", "sz3", "zfp")
LOSSLESS_PEERS = ("jpegxl", "jpegls", "jpeg2000", "jpeg2000:volume", "htj2k", "ffv1", "x265", "x264", "sperr", "sz3", "zfp")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit code."""
    options = _parser().parse_args(arguments)
    options.command_line = "python -m bench " + shlex.join(_shortened(sys.argv[1:] if arguments is None else arguments))
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
    return [Path(word).name if Path(word).is_absolute() or (os.sep in word and Path(word).is_file()) else word for word in arguments]


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
    speed = commands.add_parser("throughput", help="encode and decode speed, memory; same threads for all")
    _common(speed, ",".join(TIMED_PEERS))
    speed.add_argument("--rate", type=float, default=0.25, help="bits/voxel at which all are timed")
    _timed(speed, process_repeats=3)
    speed.set_defaults(run=_run_throughput)
    lossless = commands.add_parser("lossless", help="bits/voxel and speed without loss, every sample compared")
    _common(lossless, ",".join(LOSSLESS_PEERS))
    _timed(lossless, process_repeats=0)
    lossless.set_defaults(run=_run_lossless, rate=None)
    readme = commands.add_parser("readme", help="make the README's tables from a results folder")
    readme.add_argument("--results", type=Path, required=True)
    readme.add_argument("--readme", type=Path, default=Path("README.md"))
    readme.set_defaults(run=_run_readme)
    return parser


def _timed(parser: argparse.ArgumentParser, process_repeats: int) -> None:
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of every codec")
    parser.add_argument("--repeats", type=int, default=5, help="of the codec alone")
    parser.add_argument("--process-repeats", type=int, default=process_repeats, help="of whole processes")


def _common(parser: argparse.ArgumentParser, peers: str) -> None:
    parser.add_argument("--signals", nargs="+", required=True, metavar="PATH", help="files, example4d or synthetic:EDGE")
    parser.add_argument("--peers", type=_names, default=_names(peers), help=f"out of {', '.join(PEERS)}; name:preset for a preset")
    parser.add_argument("--methods", type=_names, default=["tinc", "sci", "pyramid"], help=f"ours, out of {', '.join(METHODS)}; '' for none")
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
    _note_run(options)
    return _run_report(options)


def _row_line(row: dict[str, object]) -> str:
    start = f"{row['signal']} {row['peer']} at {float(row['target']):.3g}: "  # type: ignore[arg-type]
    if row["status"] != "ok":
        return start + f"{row['status']}, {row['reason']}"
    return start + f"{row['bits_per_voxel']:.4f} bits/voxel, {row['psnr_db']:.2f} dB, {row['encode_s']:.1f} s"


def _note_run(options: argparse.Namespace) -> None:
    """Keep what ran, on which machine: the report may be written again elsewhere."""
    from .machine import machine_lines

    path = options.out / "rd_runs.txt"
    said = path.read_text("utf-8").splitlines() if path.exists() else []
    line = " ".join([f"`{options.command_line}`.", *machine_lines()])
    if line not in said:
        path.write_text("\n".join([*said, line]) + "\n", encoding="utf-8")


def _run_report(options: argparse.Namespace) -> int:
    from . import rd
    from .report import curves_of, headline, latest, write_report
    from .store import Store

    path = options.out / "rd.csv"
    if not path.is_file():
        raise ValueError(f"expected rd.csv in {options.out}, found none; run `python -m bench rd` first")
    store = Store(path, rd.COLUMNS, rd.KEY)
    saved = options.out / "rd_runs.txt"
    written = write_report(options.out, store.rows, saved.read_text("utf-8").splitlines() if saved.exists() else [])
    rows = latest(store.rows)
    print("\n".join(headline(curves_of(rows), {row["signal"]: row["kind"] for row in rows})))
    print(f"Written: {written}")
    return 0


def _run_throughput(options: argparse.Namespace) -> int:
    return _run_timed(options, "throughput")


def _run_lossless(options: argparse.Namespace) -> int:
    return _run_timed(options, "lossless")


def _run_timed(options: argparse.Namespace, name: str) -> int:
    """Time everything afresh: ratios are only worth something within one run."""
    from . import throughput
    from .store import Store

    names = _specs(options)
    _say_missing(names)
    plan = throughput.Plan(options.rate, options.threads, options.repeats, options.process_repeats)
    path = options.out / f"{name}.csv"
    path.unlink(missing_ok=True)
    store = Store(path, throughput.COLUMNS, ())

    def on_row(row: dict[str, object]) -> None:
        store.append(row)
        print(_timed_line(row), flush=True)

    rows = throughput.run(options.signals, names, plan, on_row)
    if name == "throughput":
        lines = throughput.throughput_lines(rows, plan, options.command_line) + throughput.gpu_lines(options.signals)
    else:
        lines = throughput.lossless_lines(rows, plan, options.command_line)
    written = options.out / f"{name}.md"
    written.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"Written: {written}")
    return 0


def _run_readme(options: argparse.Namespace) -> int:
    from .readme import update

    update(options.readme, options.results)
    print(f"Written: {options.readme}")
    return 0


def _say_missing(names: Sequence[str]) -> None:
    for name in names:
        if missing := make_peer(name).missing():
            print(f"skipped {missing}")


def _timed_line(row: dict[str, object]) -> str:
    start = f"{row['signal']} {row['peer']}: "
    if row["status"] != "ok":
        return start + f"{row['status']}, {row['reason']}"
    return start + f"{row['bits_per_voxel']:.4f} bits/voxel, encode {row['encode_s']:.2f} s, decode {row['decode_s']:.2f} s"


if __name__ == "__main__":
    sys.exit(main())

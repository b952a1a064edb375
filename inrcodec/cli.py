"""The command line: ``inrcodec encode | decode | info | verify | compare | demo``.

Results go to stdout (tables, or one JSON object with ``--json``), progress and errors to stderr. Exit codes:
0 done, 1 the data or a file is at fault, 2 the command or an option is, 130 interrupted. Foreseeable problems
end in one line. Heavy modules are imported by the command that needs them, so that ``--help`` is instant.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inrcodec_formats.errors import InrcodecError, OptionError

from . import console, parts, paths

if TYPE_CHECKING:


    from .reports import Report

# Newer typer carries its own copy of click and older typer depends on it: either way this is click's UsageError.
_UsageError: Any = typer.BadParameter.__bases__[0]

EXIT_DATA, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="inrcodec",
    help="Compress biomedical volumes and surgical video into small neural networks, and back.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no tables; errors only.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace the output when it exists.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Compressed = Annotated[Path, typer.Argument(metavar="IN.inrc", help="The compressed file.", show_default=False)]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        console.print_line(_version())
    elif context.invoked_subcommand is None:
        console.print_line(context.get_help())


@app.command()
def encode(
    source: Annotated[Path, typer.Argument(metavar="IN", help="NIfTI, NRRD, TIFF or .npy file, or a clip.", show_default=False)],
    output: Annotated[Path, typer.Argument(metavar="OUT.inrc", help="The file to write.", show_default=False)],
    ratio: Annotated[float | None, typer.Option(help="Target: raw bytes over compressed bytes.")] = None,
    bits_per_voxel: Annotated[float | None, typer.Option(help="Target: compressed bits per voxel.")] = None,
    psnr_db: Annotated[float | None, typer.Option(help="Target: PSNR over the data's own range, in dB.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="pyramid (smallest, minutes), tinc (seconds), sci or auto. Where nothing is said, volumes become pyramids, or TINC where that is better.", show_default=False),
    ] = None,
    effort: Annotated[int, typer.Option(help="1 (fast) to 9 (long).")] = 5,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the fit; the same seed gives the same file.")] = 0,
    quantise_step: Annotated[
        float | None, typer.Option(help="For files of fractions: the smallest difference to keep.")
    ] = None,
    axes: Annotated[
        str | None, typer.Option(help='For .npy files: one letter per axis out of tzyxc, c for channels, e.g. "yxc".')
    ] = None,
    restoration: Annotated[
        bool, typer.Option(help="Correct decoded samples by a small network, where that is worth its bytes.")
    ] = True,
    audio: Annotated[bool, typer.Option(help="Of clips: carry audio and data streams as they are.")] = True,
    region: Annotated[
        str | None,
        typer.Option(help='Where errors count more: a mask file (PNG or as IN), or slices of the last axes, e.g. "40:90,20:80".'),
    ] = None,
    emphasis: Annotated[
        float | None, typer.Option(help="How many times errors inside the region count, over those outside; 8 by default.")
    ] = None,
    motion: Annotated[
        bool | None, typer.Option(help="Displace frames against each other before they are coded; of clips where it pays, unless said.", show_default=False)
    ] = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compress IN into OUT.inrc.

    Give exactly one of --ratio, --bits-per-voxel, --psnr-db.
    """
    target = _one_target(ratio=ratio, bits_per_voxel=bits_per_voxel, psnr_db=psnr_db)
    paths.check_source(source)
    if output.suffix.lower() != ".inrc":
        raise OptionError(f"expected an output name that ends in .inrc, found {output}; for the way back use decode")
    paths.check_output(output, force)
    chosen = None if region is None else _region_of(region)
    import inrcodec

    with console.ProgressDisplay(quiet=quiet) as progress:
        report = inrcodec.encode(
            source,
            output,
            **target,
            method=method,
            effort=effort,
            device=device,
            seed=seed,
            quantise_step=quantise_step,
            axes=axes,
            restoration=restoration,
            audio=audio,
            region=chosen,
            emphasis=emphasis,
            motion="auto" if motion is None else motion,
            progress=progress,
        )
    _emit(report, console.show_encode, as_json, quiet)


@app.command()
def decode(
    source: Compressed,
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write; its suffix says how.", show_default=False)
    ],
    region: Annotated[
        str | None,
        typer.Option(help='Only this part, slowest axis first, e.g. "40:50,7,::2" for z, y, x; of clips frames, "40:50".'),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Sample the networks on a finer (2) or coarser (0.5) grid.")
    ] = None,
    codec: Annotated[
        str | None, typer.Option(help="Of a clip's file: h264, hevc or ffv1; unless given, what suits its suffix.")
    ] = None,
    device: Device = "auto",
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decompress IN.inrc into OUT, whole or in part."""
    if region is not None and scale is not None:
        raise OptionError("expected --region or --scale, found both; give one")
    selection = None if region is None else parts.parse_region(region)
    if scale is not None and not scale > 0:
        raise OptionError(f"expected a positive --scale, found {scale}")
    paths.check_input(source)
    paths.check_output(output, force)
    import inrcodec

    with console.ProgressDisplay(quiet=quiet) as progress:
        if selection is None and scale is None:
            of_clip = {} if codec is None else {"codec": codec}
            report = inrcodec.decode(source, output, device=device, **of_clip, progress=progress)
        else:
            report = parts.decode_part(source, output, selection, scale, device, codec, progress)
    _emit(report, console.show_decode, as_json, quiet)


@app.command()
def info(
    source: Compressed,
    picture: Annotated[
        Path | None, typer.Option(help="Write a PNG: the blocks over the middle slices, coloured by bits per voxel.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Say what IN.inrc holds; only a picture decodes any of it."""
    paths.check_input(source)
    paths.check_picture(picture, force)
    import inrcodec

    _emit(inrcodec.info(source, picture=picture), console.show_info, as_json)


@app.command()
def verify(
    source: Compressed,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every block as well.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check every checksum of IN.inrc; exit code 1 when it is damaged."""
    paths.check_input(source)
    import inrcodec

    report = inrcodec.verify(source, deep=deep)
    _emit(report, console.show_verify, as_json, quiet)
    if not report.ok:
        raise typer.Exit(EXIT_DATA)


@app.command()
def compare(
    original: Annotated[Path, typer.Argument(metavar="ORIGINAL", help="The uncompressed file.", show_default=False)],
    decoded: Annotated[
        Path, typer.Argument(metavar="DECODED", help="The decoded file, or the .inrc itself.", show_default=False)
    ],
    picture: Annotated[
        Path | None, typer.Option(help="Write a PNG: three slices of original, decoded and error.")
    ] = None,
    compressed: Annotated[Path | None, typer.Option(help="The .inrc file, for its size.")] = None,
    quantise_step: Annotated[
        float | None, typer.Option(help="For files of fractions: the smallest difference to keep.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure what was lost: PSNR, SSIM, largest and mean error, ratio."""
    for path in (original, decoded):
        paths.check_source(path)
    if compressed is not None:
        paths.check_input(compressed)
    paths.check_picture(picture, force)
    from .comparison import compare as measure

    with console.ProgressDisplay(quiet=quiet) as progress:
        report = measure(
            original,
            decoded,
            compressed_bytes=compressed.stat().st_size if compressed else None,
            picture=picture,
            quantise_step=quantise_step,
            progress=progress,
        )
    _emit(report, console.show_compare, as_json, quiet)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to put the files.")] = Path("demo"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try all of it on a real MRI volume.

    The volume came with the installation: nothing is downloaded.
    """
    from .demo import DESCRIPTION, next_commands, run_demo

    tables = not (as_json or quiet)
    if tables:
        console.print_line(DESCRIPTION)
    with console.ProgressDisplay(quiet=quiet) as progress:
        report = run_demo(output, progress=progress)
    if not tables:
        _emit(report, lambda _: None, as_json)
        return
    console.show_encode(report.encode)
    console.show_decode(report.decode)
    console.show_compare(report.compare)
    console.print_line("\nFiles:")
    for path in (report.compressed, report.decoded, report.picture):
        console.print_line(f"  {path}")
    console.print_line("\nTry next:")
    for line in next_commands(report):
        console.print_line(f"  {line}")


def _region_of(text: str) -> Path | tuple[slice, ...]:
    """The file of a mask, or slices: whatever has no letters but digits and a colon somewhere."""
    if ":" in text and not set(text) - set("0123456789:,-[] "):
        return parts.parse_region(text)
    paths.check_input(Path(text))
    return Path(text)


def _one_target(**targets: float | None) -> dict[str, float]:
    given = {name: value for name, value in targets.items() if value is not None}
    if len(given) != 1:
        choices = ", ".join(_flag(name) for name in targets)
        found = " and ".join(_flag(name) for name in given) or "none"
        raise OptionError(f"expected exactly one target out of {choices}; found {found}")
    return given


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _emit(report: Report, show: Callable[[Any], None], as_json: bool, quiet: bool = False) -> None:
    if as_json:
        _print_json(report.to_dict())
    elif not quiet:
        show(report)


def _print_json(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content, allow_nan=False, indent=2) + "\n")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("inrcodec")
    except PackageNotFoundError:
        return "unknown (inrcodec is not installed)"


def _fail(message: str, code: int, as_json: bool) -> int:
    console.print_error(message)
    if as_json:
        _print_json({"error": " ".join(message.split()), "exit_code": code})
    return code


def _os_error(error: OSError) -> str:
    """Write an operating-system error without its number."""
    if error.strerror and error.filename is not None:
        return f"{error.strerror}: {os.fspath(error.filename)}"
    return str(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default ``sys.argv[1:]``.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Usage errors come before the options are parsed, and a program that asked for JSON wants those as JSON too.
    as_json = "--json" in arguments
    try:
        code = app(arguments, prog_name="inrcodec", standalone_mode=False)
        sys.stdout.flush()
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "inrcodec"
        return _fail(f"{error.format_message().rstrip('.')}; see {command} --help", EXIT_USAGE, as_json)
    except OptionError as error:
        return _fail(str(error), EXIT_USAGE, as_json)
    except InrcodecError as error:
        return _fail(str(error), EXIT_DATA, as_json)
    except BrokenPipeError:
        # The reader of a pipe left (``| head``). Python would complain when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DATA
    except OSError as error:
        return _fail(_os_error(error), EXIT_DATA, as_json)
    except MemoryError:
        return _fail("not enough memory; encode a part of the volume, or decode with --region", EXIT_DATA, as_json)
    except (KeyboardInterrupt, typer.Abort):
        code = EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED:
        return _fail("interrupted", EXIT_INTERRUPTED, as_json)
    return code or 0


if __name__ == "__main__":
    sys.exit(main())

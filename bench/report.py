"""The report of a rate–distortion run: who wins where, in words, then tables and plots; made from the CSV alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from .bd import Curve, Delta, better, delta, mean_rate
from .peers import BASELINES, METHODS, PEERS
from .plots import Summary, plot_signal, plot_summary
from .signals import LABEL_MAPS, SOURCE_NOTES
from .store import Row

Curves = dict[str, dict[str, Curve]]
"""By signal, then by codec."""

COMMON_RATES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)


def latest(rows: Iterable[Row]) -> list[Row]:
    """Rows as they stand: of several measurements of one thing, under several commits, the last."""
    found = {(r["signal"], r["peer"], r["settings"], r["target"]): r for r in rows}
    return list(found.values())


def curves_of(rows: Iterable[Row]) -> Curves:
    """Curves by signal and codec; where a series was laid out in two orders, the better one."""
    points: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in rows:
        if row["status"] == "ok":
            point = float(row["bits_per_voxel"]), float(row["psnr_db"])
            points.setdefault((row["signal"], row["peer"], row["settings"]), []).append(point)
    curves: Curves = {}
    for (signal, peer, settings), found in points.items():
        curve = Curve.from_points(found, settings)
        if not curve.rates:
            continue
        known = curves.setdefault(signal, {})
        known[peer] = better(known[peer], curve) if peer in known else curve
    return curves


def title_of(spec: str) -> str:
    """A codec as tables call it."""
    name, _, variant = spec.partition(":")
    peer = (PEERS | METHODS | BASELINES)[name]
    return f"{peer.title}, {peer.variant_word}{variant}" if variant else peer.title


def is_ours(spec: str) -> bool:
    """Whether a codec is one of our methods."""
    return spec.partition(":")[0] in METHODS


def averaged(signals: Iterable[str], kinds: dict[str, str]) -> list[str]:
    """Signals that averages are made of: volumes without label maps."""
    return [name for name in signals if kinds.get(name) == "volume" and name not in LABEL_MAPS]


def write_report(folder: Path, rows: Sequence[Row], runs: Sequence[str]) -> Path:
    """Write ``rd.md`` and one PNG per signal and a summary; returns the path of the text.

    Parameters
    ----------
    folder : Path
    rows : sequence of dict
        All rows of the CSV.
    runs : sequence of str
        Commands that made them, with commit, versions and machine.
    """
    rows = latest(rows)
    curves = curves_of(rows)
    kinds = {row["signal"]: row["kind"] for row in rows}
    shapes = {row["signal"]: row["shape"] for row in rows}
    lines = ["# Rate–distortion", "", *headline(curves, kinds), "", *(f"Command: {run}" for run in runs), ""]
    lines += _how_to_read()
    lines += ["", "![BD-rates](rd_summary.png)", "", *_bd_tables(curves, kinds), *baseline_table(rows)]
    for signal in sorted(curves):
        lines += ["", f"## {signal}, {shapes[signal]}", ""]
        if signal in SOURCE_NOTES:
            lines += [f"Reference: the decoded frames of a clip that was {SOURCE_NOTES[signal]}.", ""]
        lines += [f"![{signal}](rd_{signal}.png)", "", *_psnr_table(curves[signal]), "", *_points_table(signal, rows)]
        plot_signal(folder / f"rd_{signal}.png", signal, {title_of(s): c for s, c in curves[signal].items()}, _own_titles())
    lines += _not_measured(rows)
    plot_summary(folder / "rd_summary.png", summaries(curves, kinds))
    path = folder / "rd.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def headline(curves: Curves, kinds: dict[str, str]) -> list[str]:
    """Who wins where, in plain words, also when it is not us."""
    lines = []
    for kind, names in (("volume", averaged(curves, kinds)), ("clip", [s for s in curves if kinds[s] == "clip"])):
        for rate in COMMON_RATES:
            winners = _winners(curves, names, rate)
            if winners:
                parts = [f"{title_of(spec)} on {_listed(won, names)}" for spec, won in winners]
                plural = f"{kind}s" if len(names) > 1 else kind
                lines.append(f"- At {rate:.3g} bits/voxel, best PSNR on the {plural}: {'; '.join(parts)}.")
    lines += _standing(curves, kinds)
    return lines or ["Nothing was measured."]


def _winners(curves: Curves, names: list[str], rate: float) -> list[tuple[str, list[str]]]:
    won: dict[str, list[str]] = {}
    for name in names:
        found = {spec: value for spec, curve in curves[name].items() if (value := curve.psnr_at(rate)) is not None}
        if len(found) > 1:
            won.setdefault(max(found, key=lambda spec: found[spec]), []).append(name)
    return sorted(won.items(), key=lambda item: -len(item[1]))


def _listed(won: list[str], names: list[str]) -> str:
    return f"all {len(won)}" if len(won) == len(names) > 1 else ", ".join(won)


def _standing(curves: Curves, kinds: dict[str, str]) -> list[str]:
    """Our methods against every peer, averaged over volumes."""
    lines = []
    names = averaged(curves, kinds)
    for method in sorted({spec for name in names for spec in curves[name] if is_ours(spec)}):
        words = []
        for peer in _peers(curves):
            found = [d.rate for name in names if (d := _delta(curves, name, method, peer)) is not None]
            if found:
                mean = mean_rate(found)
                amount = f"{abs(mean):.0%} {'more' if mean > 0 else 'fewer'} bytes than {title_of(peer)}"
                words.append((mean, amount + (f" ({len(found)} of {len(names)} volumes)" if len(found) < len(names) else "")))
        if words:
            ordered = "; ".join(text for _, text in sorted(words, reverse=True))
            lines.append(f"- {title_of(method)} needs, at equal PSNR, averaged over {len(names)} volumes: {ordered}.")
    return lines


def _delta(curves: Curves, signal: str, method: str, peer: str) -> Delta | None:
    known = curves[signal]
    return delta(known[peer], known[method]) if peer in known and method in known else None


def _peers(curves: Curves) -> list[str]:
    return sorted({spec for known in curves.values() for spec in known if not is_ours(spec)})


def _methods(curves: Curves) -> list[str]:
    found = {spec for known in curves.values() for spec in known if is_ours(spec)}
    return sorted(found, key=lambda spec: (list(METHODS).index(spec.partition(":")[0]), spec))


def _own_titles() -> set[str]:
    return {peer.title for peer in METHODS.values()}


def _how_to_read() -> list[str]:
    return [
        "PSNR over the signal's own range and all its planes; bits/voxel count every byte of a stream over every stored sample (for clips: of luma and chroma).",
        "BD-rate: PCHIP over log(rate), overlap only; negative means that our method needs fewer bytes. Averages in the log domain, label map and clips left out.",
        "A 4-D series is laid out in both frame orders and the better one is kept. Seconds are of one thread beside another measurement: for speed see the throughput table.",
    ]


def _bd_tables(curves: Curves, kinds: dict[str, str]) -> list[str]:
    lines: list[str] = []
    names = [name for name in sorted(curves) if any(is_ours(spec) for spec in curves[name])]
    for method in _methods(curves):
        lines += [f"## {title_of(method)} against each peer", ""]
        lines += ["BD-rate, and in brackets BD-PSNR and the overlap it speaks of:", ""]
        lines += ["| peer | " + " | ".join(names) + " | average |", "|---|" + "--:|" * (len(names) + 1)]
        for peer in _peers(curves):
            deltas = {name: _delta(curves, name, method, peer) for name in names}
            if any(deltas.values()):
                cells = [_delta_cell(deltas[name]) if peer in curves[name] else "" for name in names]
                lines.append(f"| {title_of(peer)} | {' | '.join(cells)} | {_average_cell(deltas, averaged(names, kinds))} |")
        lines.append("")
    return lines


def baseline_table(rows: Sequence[Row]) -> list[str]:
    """PSNR of our methods and of the baseline at the same size, and by how much the better of ours is ahead."""
    points: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        if row["status"] == "ok" and row["peer"] in METHODS | BASELINES:
            points.setdefault((row["signal"], row["target"]), {})[row["peer"]] = row
    both = {key: found for key, found in points.items() if found.keys() & BASELINES.keys() and found.keys() & METHODS.keys()}
    if not both:
        return []
    lines = ["## Against a uniform grid of equal plain SIRENs", "", "PSNR in dB at the same size, same optimiser, steps, quantisation and coding:", ""]
    lines += ["| signal | bits/voxel | plain SIREN grid | SCI | TINC | better of ours |", "|---|--:|--:|--:|--:|--:|"]
    gains = []
    for (signal, target), found in sorted(both.items()):
        psnr = {name: float(row["psnr_db"]) for name, row in found.items()}
        gain = max(value for name, value in psnr.items() if name in METHODS) - psnr["siren"]
        gains += [gain] if signal not in LABEL_MAPS else []
        cells = [f"{psnr[name]:.2f}" if name in psnr else "" for name in ("siren", "sci", "tinc")]
        lines.append(f"| {signal} | {float(target):.4g} | {' | '.join(cells)} | {gain:+.2f} |")
    if gains:
        lines.append(f"| average without the label map | | | | | {sum(gains) / len(gains):+.2f} |")
    return [*lines, ""]


def _delta_cell(found: Delta | None) -> str:
    if found is None:
        return "no overlap"
    low, high = found.overlap_db
    return f"{found.rate:+.1%} ({found.psnr_db:+.2f} dB; {low:.1f} to {high:.1f} dB)"


def _average_cell(deltas: dict[str, Delta | None], names: list[str]) -> str:
    found = [d.rate for name in names if (d := deltas.get(name)) is not None]
    return f"{mean_rate(found):+.1%} ({len(found)})" if found else ""


def _psnr_table(known: dict[str, Curve]) -> list[str]:
    """PSNR at common rates, interpolated: to be read across codecs."""
    rates = [rate for rate in COMMON_RATES if any(curve.psnr_at(rate) is not None for curve in known.values())]
    lines = ["PSNR in dB at bits/voxel of:", ""]
    lines += ["| codec | " + " | ".join(f"{rate:.3g}" for rate in rates) + " |", "|---|" + "--:|" * len(rates)]
    best = {rate: max((v for c in known.values() if (v := c.psnr_at(rate)) is not None), default=None) for rate in rates}
    for spec in sorted(known, key=lambda s: (not is_ours(s), s)):
        values = [known[spec].psnr_at(rate) for rate in rates]
        cells = [_psnr_cell(value, best[rate]) for value, rate in zip(values, rates, strict=True)]
        lines.append(f"| {title_of(spec)} | {' | '.join(cells)} |")
    return lines


def _psnr_cell(value: float | None, best: float | None) -> str:
    if value is None:
        return ""
    return f"**{value:.2f}**" if value == best else f"{value:.2f}"


def _points_table(signal: str, rows: Sequence[Row]) -> list[str]:
    """Every measured point of a signal, folded away."""
    measured = [row for row in rows if row["signal"] == signal and row["status"] == "ok"]
    frames = int(measured[0]["shape"].partition("x")[0]) if measured[0]["kind"] == "clip" else None
    speed = "encode s | decode s" if frames is None else "encode frames/s | decode frames/s"
    lines = ["<details><summary>Measured points</summary>", ""]
    lines += [f"| codec | settings | quality | bytes | bits/voxel | PSNR dB | SSIM | max error | {speed} |"]
    lines += ["|---|---|---|--:|--:|--:|--:|--:|--:|--:|"]
    mappings = {}
    for row in measured:
        mappings[row["peer"]] = row["mapping"]
        cells = [title_of(row["peer"]), row["settings"], row["quality"], row["bytes"], f"{float(row['bits_per_voxel']):.4f}"]
        cells += [f"{float(row['psnr_db']):.2f}", _rounded(row["ssim"], 4), f"{float(row['max_abs_error']):g}"]
        cells += [_speed(row["encode_s"], frames, 1), _speed(row["decode_s"], frames, 2)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Values as the codecs see them: " + "; ".join(f"{title_of(p)}: {m}" for p, m in mappings.items()) + "."]
    return [*lines, "", "</details>"]


def _speed(seconds: str, frames: int | None, digits: int) -> str:
    """Seconds, or frames of a clip in each of them."""
    if frames is None or not seconds:
        return _rounded(seconds, digits)
    return f"{frames / max(float(seconds), 1e-9):.3g}"


def _rounded(text: str, digits: int) -> str:
    return f"{float(text):.{digits}f}" if text else ""


def _not_measured(rows: Sequence[Row]) -> list[str]:
    """Everything that was asked for and is not in the tables, with the reason."""
    lines = ["", "## Not reached, not supported, failed", ""]
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        if row["status"] != "ok":
            reason = row["reason"] if row["status"] != "unreachable" else ""
            rate = f"{float(row['target']):.3g}" if row["target"] else ""
            found.setdefault((row["status"], row["signal"], title_of(row["peer"]) + _order_note(row), reason), []).append(rate)
    for (status, signal, peer, reason), rates in sorted(found.items()):
        wanted = f" at {', '.join(filter(None, rates))} bits/voxel" if any(rates) else ""
        lines.append(f"- {status}: {signal}, {peer}{wanted}{f': {reason}' if reason else ''}")
    return lines if found else [*lines, "Nothing."]


def _order_note(row: Row) -> str:
    _, found, order = row["settings"].partition("order=")
    return f" ({order})" if found else ""


def summaries(curves: Curves, kinds: dict[str, str]) -> list[Summary]:
    """BD-rates of each of our methods against every peer, for the summary picture."""
    return [found for method in _methods(curves) if (found := _summary(curves, kinds, method)).values]


def _summary(curves: Curves, kinds: dict[str, str], method: str) -> Summary:
    names = [name for name in sorted(curves) if method in curves[name]]
    # A baseline measured at single sizes has no curve to compare.
    peers = [peer for peer in _peers(curves) if any(_delta(curves, name, method, peer) for name in names)]
    values: list[list[float | None]] = []
    for peer in peers:
        found = {name: _delta(curves, name, method, peer) for name in names}
        rates = [d.rate if (d := found[name]) is not None else None for name in names]
        means = [d.rate for name in averaged(names, kinds) if (d := found[name]) is not None]
        values.append([*rates, mean_rate(means) if means else None])
    return Summary(title_of(method), [title_of(p) for p in peers], [*names, "average"], values)

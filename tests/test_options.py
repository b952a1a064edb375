"""Options: clear refusals, and dictionaries that come back."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.options import (
    Allocation,
    Coordinates,
    EncodeOptions,
    NetworkAllocation,
    Partition,
    SciOptions,
    TincOptions,
    check_device,
    one_target,
)
from inrcodec_formats.container.header import Quality, QualityKind
from inrcodec_formats.errors import InrcodecError, OptionError

TARGET = Quality("ratio", 64.0)


@st.composite
def tinc_options(draw: st.DrawFn) -> TincOptions:
    choices: dict[str, Any] = {
        "features": draw(st.integers(2, 4096)),
        "network_share": draw(st.floats(0, 0.95)),
        "leaf_edge": draw(st.integers(2, 32)),
        "leaf_levels": draw(st.integers(1, 5)),
        "allocation": draw(st.sampled_from(get_args(Allocation))),
        "interest_threshold": draw(st.none() | st.floats(-1e6, 1e6)),
        "bits_per_weight": draw(st.floats(0.1, 32)),
        "starts": draw(st.integers(1, 16)),
    }
    if draw(st.booleans()):
        layers = tuple(draw(st.lists(st.integers(1, 8), min_size=1, max_size=5)))
        ratios = tuple(draw(st.floats(0.01, 100)) for _ in layers)
        coordinates = draw(st.sampled_from(get_args(Coordinates)))
        choices |= {"root": "dense", "coordinates": coordinates, "layers": layers, "level_ratios": ratios}
    return TincOptions(**choices)


@st.composite
def encode_options(draw: st.DrawFn) -> EncodeOptions:
    return EncodeOptions(
        Quality(draw(st.sampled_from(get_args(QualityKind))), draw(st.floats(0.01, 1000))),
        effort=draw(st.integers(1, 9)),
        device=draw(st.sampled_from(["auto", "cpu", "cuda", "cuda:1"])),
        seed=draw(st.integers(0, 2**63 - 1)),
        tinc=draw(tinc_options()),
    )


@settings(max_examples=80, deadline=None)
@given(encode_options())
def test_options_come_back_from_dictionaries(options: EncodeOptions) -> None:
    plain = options.to_dict()
    assert EncodeOptions.from_dict(plain) == options
    assert EncodeOptions.from_dict(json.loads(json.dumps(plain))) == options
    assert EncodeOptions.from_dict(plain).to_dict() == plain
    assert TincOptions.from_dict(options.tinc.to_dict()) == options.tinc


def test_what_a_dictionary_leaves_out_is_default() -> None:
    assert TincOptions.from_dict({}) == TincOptions()
    plain = {"target": {"kind": "ratio", "value": 64.0}}
    assert EncodeOptions.from_dict(plain) == EncodeOptions(TARGET)
    assert plain == {"target": {"kind": "ratio", "value": 64.0}}, "left as it was"


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"target": {"kind": "ratio", "value": 2.0}, "speed": 3, "level": 1}, "found level, speed; remove them"),
        ({"target": {"kind": "ratio", "value": 2.0, "unit": 1}}, "names of Quality, found unit"),
        ({"target": {"kind": "ratio", "value": 2.0}, "tinc": {"width": 3}}, "names of TincOptions, found width"),
        ({"effort": 3}, "expected a target, found none"),
    ],
)
def test_unknown_names_are_refused(plain: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        EncodeOptions.from_dict(plain)


NOT_TINC: list[tuple[dict[str, Any], str]] = [
    ({"root": "sparse"}, "expected root to be one of separable, dense, found 'sparse'"),
    ({"coordinates": "polar"}, "expected coordinates to be one of auto, local, global, found 'polar'"),
    ({"allocation": []}, r"expected allocation to be one of rate, equal, interest, variance, found \[\]"),
    ({"features": 1}, "expected features .* from 2 to .*, found 1"),
    ({"features": 100.0}, "expected features to be a whole number"),
    ({"features": True}, "expected features to be a whole number"),
    ({"leaf_edge": 33}, "expected leaf_edge .* from 2 to 32, found 33"),
    ({"leaf_edge": 4.5}, "expected leaf_edge to be a whole number"),
    ({"leaf_levels": 0}, "expected leaf_levels .* from 1 to 5, found 0"),
    ({"starts": 17}, "expected starts .* from 1 to 16, found 17"),
    ({"starts": "two"}, "expected starts .*, found 'two'"),
    ({"bits_per_weight": 0.0}, "expected bits_per_weight from 0.1 to 32, found 0.0"),
    ({"bits_per_weight": math.nan}, "expected bits_per_weight to be a finite number, found nan"),
    ({"network_share": "half"}, "expected network_share to be a finite number, found 'half'"),
    ({"network_share": 0.96}, "expected network_share from 0.0 to 0.95, found 0.96"),
    ({"interest_threshold": math.inf}, "expected interest_threshold to be a finite number, found inf"),
    ({"root": "dense", "layers": ()}, r"expected layers to be 1 to 5 numbers from 1 to 8, found \(\)"),
    ({"root": "dense", "layers": (9,)}, r"expected layers to be 1 to 5 numbers from 1 to 8, found \(9,\)"),
    ({"root": "dense", "layers": (1.5,)}, r"expected layers to be 1 to 5 numbers from 1 to 8, found \(1.5,\)"),
    ({"root": "dense", "layers": (1, 2)}, "one positive level ratio for each of the 2 network levels"),
    ({"root": "dense", "level_ratios": (0.0,)}, "one positive level ratio"),
    ({"root": "dense", "level_ratios": (math.inf,)}, "one positive level ratio"),
    ({"coordinates": "global"}, "separable root, found .*global.* choose root='dense'"),
]


@pytest.mark.parametrize(("choices", "words"), NOT_TINC, ids=[str(c) for c, _ in NOT_TINC])
def test_impossible_tinc_options_are_refused(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        TincOptions(**choices)


NOT_ENCODE: list[tuple[dict[str, Any], str]] = [
    ({"method": "jpeg"}, "expected method to be one of tinc, sci, pyramid, auto, found 'jpeg'"),
    ({"effort": 0}, "expected effort to be a whole number from 1 to 9, found 0"),
    ({"effort": 10}, "expected effort to be a whole number from 1 to 9, found 10"),
    ({"effort": 5.0}, "expected effort to be a whole number from 1 to 9, found 5.0"),
    ({"effort": True}, "expected effort to be a whole number from 1 to 9, found True"),
    ({"device": "gpu"}, "expected device 'auto', 'cpu', 'cuda' or 'cuda:N', found 'gpu'"),
    ({"seed": -1}, r"expected seed to be a whole number from 0 to 2\*\*63 - 1, found -1"),
    ({"seed": 2**63}, "expected seed to be a whole number"),
    ({"seed": 0.0}, "expected seed to be a whole number"),
    ({"seed": False}, "expected seed to be a whole number"),
]


@pytest.mark.parametrize(("choices", "words"), NOT_ENCODE, ids=[str(c) for c, _ in NOT_ENCODE])
def test_impossible_encode_options_are_refused(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        EncodeOptions(TARGET, **choices)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, InrcodecError)
    assert "\n" not in str(caught.value)


def test_options_cannot_be_changed() -> None:
    for options in (EncodeOptions(TARGET), TincOptions()):
        with pytest.raises(AttributeError):
            options.seed = 3  # type: ignore[misc, union-attr]


def test_effort_buys_work() -> None:
    options = [EncodeOptions(TARGET, effort=effort) for effort in range(1, 10)]
    assert [o.fit_steps for o in options] == [15, 30, 60, 120, 240, 480, 960, 1920, 3840]
    turns = [o.turns for o in options]
    assert turns == sorted(turns) and turns[0] >= 1 and turns[-1] > turns[0]


@pytest.mark.parametrize("kind", get_args(QualityKind))
@pytest.mark.parametrize("value", [1, 0.25, 1e6])
def test_one_target(kind: str, value: float) -> None:
    others: dict[str, float | None] = dict.fromkeys(get_args(QualityKind))
    assert one_target(**(others | {kind: value})) == Quality(kind, float(value))  # type: ignore[arg-type]


def test_no_target_names_the_choices() -> None:
    for nothing in ({}, {"ratio": None, "psnr_db": None}):
        with pytest.raises(OptionError, match="exactly one target, ratio= or bits_per_voxel= or psnr_db=, found none"):
            one_target(**nothing)


def test_two_targets_are_named() -> None:
    with pytest.raises(OptionError, match=r"found ratio=64, psnr_db=40\.5; keep one"):
        one_target(ratio=64, psnr_db=40.5)


@pytest.mark.parametrize("kind", ["ratio", "bits_per_voxel"])
@pytest.mark.parametrize("value", [0, -3.0, math.nan, math.inf, "64", True])
def test_sizes_are_positive_numbers(kind: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"expected {kind} to be a positive number, found"):
        one_target(**{kind: value})


def test_devices_there_is_code_for() -> None:
    check_device("auto")
    for device in ("cpu", "cuda", "cuda:0", "cuda:12"):
        check_device(device)
    for device in ("mps", "", "CPU", "cuda:", "cuda:x", "cuda:1 "):
        with pytest.raises(OptionError, match=f"found '{device}'"):
            check_device(device)


@st.composite
def sci_options(draw: st.DrawFn) -> SciOptions:
    return SciOptions(
        partition=draw(st.sampled_from(get_args(Partition))),
        blocks=draw(st.none() | st.integers(1, 1 << 20)),
        layers=draw(st.integers(1, 8)),
        taper=draw(st.floats(0, 4)),
        allocation=draw(st.sampled_from(get_args(NetworkAllocation))),
        bandwidth=draw(st.none() | st.floats(0.1, 1000)),
        bandwidth_share=draw(st.floats(0.05, 4)),
        halo=draw(st.integers(0, 8)),
        starts=draw(st.integers(1, 4)),
        bits_per_weight=draw(st.floats(0.5, 32)),
    )


@settings(max_examples=80, deadline=None)
@given(sci_options())
def test_sci_options_come_back_from_dictionaries(sci: SciOptions) -> None:
    assert SciOptions.from_dict(json.loads(json.dumps(sci.to_dict()))) == sci
    options = EncodeOptions(TARGET, method="sci", sci=sci)
    assert EncodeOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


def test_sci_defaults_and_unknown_names() -> None:
    assert SciOptions.from_dict({}) == SciOptions() == EncodeOptions(TARGET).sci
    plain = {"target": {"kind": "ratio", "value": 2.0}, "sci": {"width": 3}}
    with pytest.raises(OptionError, match="names of SciOptions, found width"):
        EncodeOptions.from_dict(plain)
    for wrong in ({"sci": {"halo": 1}}, {"sci": None}, {"sci": TincOptions()}, {"tinc": SciOptions()}):
        with pytest.raises(OptionError, match=r"to be (Sci|Tinc)Options, found"):
            EncodeOptions(TARGET, **wrong)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        SciOptions().halo = 3  # type: ignore[misc]


NOT_SCI: list[tuple[dict[str, Any], str]] = [
    ({"partition": "octree"}, "expected partition to be one of spectrum, uniform, found 'octree'"),
    ({"allocation": "rate"}, "expected allocation to be one of equal, size, .*, found 'rate'"),
    ({"blocks": 0}, "expected blocks .* from 1 to 1048576, found 0"),
    ({"blocks": (1 << 20) + 1}, "expected blocks .* from 1 to 1048576"),
    ({"blocks": True}, "expected blocks to be a whole number"),
    ({"layers": 0}, "expected layers .* from 1 to 8, found 0"),
    ({"layers": 9}, "expected layers .* from 1 to 8, found 9"),
    ({"layers": (4,)}, r"expected layers to be a whole number .*, found \(4,\)"),
    ({"taper": -0.1}, "expected taper from 0.0 to 4.0, found -0.1"),
    ({"taper": 4.1}, "expected taper from 0.0 to 4.0, found 4.1"),
    ({"taper": math.nan}, "expected taper to be a finite number"),
    ({"bandwidth": 0.0}, "expected bandwidth from 0.1 to 1000.0, found 0.0"),
    ({"bandwidth": math.inf}, "expected bandwidth to be a finite number"),
    ({"bandwidth": 1001.0}, "expected bandwidth from 0.1 to 1000.0"),
    ({"bandwidth_share": 0.04}, "expected bandwidth_share from 0.05 to 4.0"),
    ({"bandwidth_share": "all"}, "expected bandwidth_share to be a finite number, found 'all'"),
    ({"halo": -1}, "expected halo .* from 0 to 8, found -1"),
    ({"halo": 9}, "expected halo .* from 0 to 8, found 9"),
    ({"starts": 0}, "expected starts .* from 1 to 4, found 0"),
    ({"starts": 5}, "expected starts .* from 1 to 4, found 5"),
    ({"bits_per_weight": 0.4}, "expected bits_per_weight from 0.5 to 32, found 0.4"),
]


@pytest.mark.parametrize(("choices", "words"), NOT_SCI, ids=[str(c) for c, _ in NOT_SCI])
def test_impossible_sci_options_are_refused(choices: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        SciOptions(**choices)
    assert "\n" not in str(caught.value)


def test_limits_of_options_are_those_of_the_stream() -> None:
    """What the options allow, a stream can say and a decoder accepts."""
    from inrcodec.coding.networks import DRAWS
    from inrcodec.payload.sci import MAX_HALO, MAX_LAYERS

    assert SciOptions(halo=MAX_HALO, layers=MAX_LAYERS, starts=DRAWS).halo == MAX_HALO
    for beyond in ({"halo": MAX_HALO + 1}, {"layers": MAX_LAYERS + 1}, {"starts": DRAWS + 1}):
        with pytest.raises(OptionError):
            SciOptions(**beyond)  # type: ignore[arg-type]


def test_effort_doubles_the_steps_of_private_networks() -> None:
    assert [EncodeOptions(TARGET, effort=e).network_steps for e in (1, 2, 9)] == [50, 100, 12800]

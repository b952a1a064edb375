"""Every choice a caller has, as validated frozen dataclasses."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from typing import Any, Literal, get_args

from inrcodec_formats.container.header import Quality, QualityKind
from inrcodec_formats.errors import OptionError

from .region import Region

Root = Literal["separable", "dense"]
Coordinates = Literal["auto", "local", "global"]
Allocation = Literal["rate", "equal", "interest", "variance"]
Method = Literal["tinc", "sci", "pyramid", "auto"]
Partition = Literal["spectrum", "uniform"]
NetworkAllocation = Literal["equal", "size", "variance", "concentration", "spread"]


@dataclass(frozen=True)
class TincOptions:
    """How TINC partitions and shares.

    Attributes
    ----------
    root : {"separable", "dense"}
        First segment: products of per-axis sines, or ordinary sine layers.
    coordinates : {"auto", "local", "global"}
        What the root sees: the position inside the leaf, or inside the volume. Auto is local for a separable root
        and global for a dense one: measured, see docs/methods.md.
    features : int
        Most readout weights of a leaf, bias included.
    layers : tuple of int
        Sine layers of a dense root and of the segments of network levels 1, 2, ...; levels beyond the first give
        the tree private segments. A separable root counts as one layer.
    level_ratios : tuple of float
        Parameters of a node of each network level, relative to each other (TINC's r_l).
    network_share : float
        Part of the budget that the segments (a dense root included) may spend, 0 to 1; readouts get the rest.
    leaf_edge : int
        Longest edge of the smallest leaf, in samples.
    leaf_levels : int
        Number of tree levels at which leaves may lie; 1 turns adaptive depth off.
    allocation : {"rate", "equal", "interest", "variance"}
        How readout weights are shared among leaves: where they pay most, alike, by the number of samples above
        `interest_threshold`, or by the samples' variance.
    interest_threshold : float or None
        In stored units; None takes the mean of the volume.
    bits_per_weight : float
        Bits expected per stored weight when widths are derived from a budget.
    starts : int
        Random starts of a dense root or segments; the best after 5 % of the steps goes on.
    """

    root: Root = "separable"
    coordinates: Coordinates = "auto"
    features: int = 8192
    layers: tuple[int, ...] = (1,)
    level_ratios: tuple[float, ...] = (1.0,)
    network_share: float = 0.1
    leaf_edge: int = 8
    leaf_levels: int = 4
    allocation: Allocation = "rate"
    interest_threshold: float | None = None
    bits_per_weight: float = 6.5
    starts: int = 2

    def __post_init__(self) -> None:
        _choice("root", self.root, get_args(Root))
        _choice("coordinates", self.coordinates, get_args(Coordinates))
        _choice("allocation", self.allocation, get_args(Allocation))
        _whole("features", self.features, 2, 8192)
        _whole("leaf_edge", self.leaf_edge, 2, 32)
        _whole("leaf_levels", self.leaf_levels, 1, 5)
        _whole("starts", self.starts, 1, 16)
        _between("bits_per_weight", self.bits_per_weight, 0.1, 32)
        _between("network_share", self.network_share, 0.0, 0.95)
        if self.interest_threshold is not None:
            _number("interest_threshold", self.interest_threshold)
        if not 1 <= len(self.layers) <= 5 or any(not _is_whole(n) or not 1 <= n <= 8 for n in self.layers):
            raise OptionError(f"expected layers to be 1 to 5 numbers from 1 to 8, found {self.layers}")
        if len(self.level_ratios) != len(self.layers) or any(not 0 < r < math.inf for r in self.level_ratios):
            raise OptionError(
                f"expected one positive level ratio for each of the {len(self.layers)} network levels, found {self.level_ratios}"
            )
        if self.root == "separable" and (self.coordinates == "global" or self.layers != (1,)):
            raise OptionError(
                f"expected local coordinates and layers=(1,) with a separable root, found {self.coordinates} and "
                f"{self.layers}; choose root='dense'"
            )

    @property
    def root_coordinates(self) -> Literal["local", "global"]:
        """The coordinates chosen, auto resolved."""
        if self.coordinates == "auto":
            return "local" if self.root == "separable" else "global"
        return self.coordinates

    def to_dict(self) -> dict[str, Any]:
        """Return the choices as a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, choices: dict[str, Any]) -> TincOptions:
        """Inverse of `to_dict`; unknown names are refused."""
        return cls(**_known(cls, {k: tuple(v) if isinstance(v, list) else v for k, v in choices.items()}))


@dataclass(frozen=True)
class SciOptions:
    """How SCI partitions and what networks it fits.

    Attributes
    ----------
    partition : {"spectrum", "uniform"}
        Octree cells of the most concentrated spectra, or a grid of equal blocks.
    blocks : int or None
        Most blocks; None takes what the budget can feed.
    layers : int
        Most sine layers of a network.
    taper : float
        Each layer is ``2 ** -taper`` as wide as the one before; 0 makes plain networks of equal widths.
    allocation : {"equal", "size", "variance", "concentration", "spread"}
        Weights of a block are proportional to: 1, its voxels, voxels times variance, voxels over concentration, voxels
        times the fourth root of the variance.
    bandwidth : float or None
        RMS frequency of all first layers, radians per unit coordinate; None measures it per block and axis.
    bandwidth_share : float
        Part of the bandwidth that first layers start with.
    halo : int
        Samples by which blocks overlap their neighbours.
    starts : int
        Random starts; every block keeps its best after 5 % of the steps.
    bits_per_weight : float
        Bits expected per stored weight when widths are derived from a budget.
    """

    partition: Partition = "spectrum"
    blocks: int | None = None
    layers: int = 4
    taper: float = 0.7
    allocation: NetworkAllocation = "size"
    bandwidth: float | None = None
    bandwidth_share: float = 0.8
    halo: int = 1
    starts: int = 2
    bits_per_weight: float = 5.2

    def __post_init__(self) -> None:
        _choice("partition", self.partition, get_args(Partition))
        _choice("allocation", self.allocation, get_args(NetworkAllocation))
        if self.blocks is not None:
            _whole("blocks", self.blocks, 1, 1 << 20)
        _whole("layers", self.layers, 1, 8)
        _between("taper", self.taper, 0.0, 4.0)
        if self.bandwidth is not None:
            _between("bandwidth", self.bandwidth, 0.1, 1000.0)
        _between("bandwidth_share", self.bandwidth_share, 0.05, 4.0)
        _whole("halo", self.halo, 0, 8)
        _whole("starts", self.starts, 1, 4)
        _between("bits_per_weight", self.bits_per_weight, 0.5, 32)

    def to_dict(self) -> dict[str, Any]:
        """Return the choices as a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, choices: dict[str, Any]) -> SciOptions:
        """Inverse of `to_dict`; unknown names are refused."""
        return cls(**_known(cls, choices))


@dataclass(frozen=True)
class PyramidOptions:
    """How the pyramid is built.

    Attributes
    ----------
    levels : int
        Most lattices; axes shorter than five latents are not halved any more.
    networks : int or None
        Networks of the context model: the first ones serve the finest levels, one each. None takes what the size of the stream can feed.
    context : int or None
        Width of the context model's hidden layers, a multiple of 4; None as before.
    synthesis : tuple of int or None
        Widths of the synthesis's hidden layers, multiples of 4; None as before.
    wide : bool or None
        Whether the networks see more than the nearest latents; None as before.
    tile_edge : int
        Latents of a tile along each axis: what is coded, and decoded, by itself.
    warm_start : bool or "auto"
        Whether networks begin as those that come with the package, where there are any for such a signal; auto does it where the
        signal is too small for them to learn from parts of it, which is better.
    above : int or None
        Lattices, from the signal's own on, that hold no latents: none, one or two; None finds out what is best.
    split : int or None
        Lattices, from the finest with latents on, that are split into bands as a wavelet transform has them: rough textures and high rates are better off so. None
        finds out whether two are; on a GPU, for clips with motion and for small signals none is then.
    part_samples : int
        Larger signals are cut into parts of at most so many samples, each a pyramid of its own: a fit takes about 100 bytes a
        sample of a part (on a GPU up to 190), whatever the signal's size.
    """

    levels: int = 7
    networks: int | None = None
    context: int | None = None
    synthesis: tuple[int, int] | None = None
    wide: bool | None = None
    tile_edge: int = 64
    warm_start: bool | Literal["auto"] = "auto"
    above: int | None = None
    split: int | None = None
    part_samples: int = 1 << 25

    def __post_init__(self) -> None:
        _whole("levels", self.levels, 1, 8)
        _whole("tile_edge", self.tile_edge, 8, 256)
        if self.networks is not None:
            _whole("networks", self.networks, 1, 8)
        if self.above is not None:
            _whole("above", self.above, 0, 2)
        if self.split is not None:
            _whole("split", self.split, 0, 7)
        _whole("part_samples", self.part_samples, 1 << 10, 1 << 28)
        _wish("warm_start", self.warm_start)
        if not (self.wide is None or isinstance(self.wide, bool)):
            raise OptionError(f"expected wide to be True, False or None, found {self.wide!r}")
        if self.synthesis is not None and (not isinstance(self.synthesis, tuple) or len(self.synthesis) != 2):
            raise OptionError(f"expected synthesis to be two widths or None, found {self.synthesis!r}")
        given = [] if self.context is None else [("context", self.context)]
        for name, width in (*given, *(("synthesis", w) for w in self.synthesis or ())):
            if not _is_whole(width) or width % 4 or not 4 <= width <= 32:
                raise OptionError(f"expected {name} widths to be multiples of 4 from 4 to 32, found {width!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the choices as a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, choices: dict[str, Any]) -> PyramidOptions:
        """Inverse of `to_dict`; unknown names are refused."""
        return cls(**_known(cls, {k: tuple(v) if isinstance(v, list) else v for k, v in choices.items()}))


@dataclass(frozen=True)
class EncodeOptions:
    """Everything that decides what `encode` makes.

    Attributes
    ----------
    target : Quality
        Exactly one of ratio, bits per voxel, PSNR in dB.
    method : {"tinc", "sci", "pyramid", "auto"} or None
        Auto tries all of them on a part of the signal. None takes the one whose options are given, otherwise what suits the
        signal (`systems.auto.usual`); of clips TINC.
    effort : int
        1 (fast) to 9 (thorough): counts steps, not seconds. Of a pyramid those of its largest networks on a processor with AVX2: smaller ones, and
        faster processors, take as many more as the time allows.
    device : {"auto", "cpu", "cuda", "cuda:N"}
    seed : int
        Of everything random.
    restoration : bool
        Whether to fit a small network that corrects the decoded samples; it is kept only where it is worth its bytes.
    region : Region or None
        Where errors count more. A PSNR target then is that of the region.
    motion : bool or "auto"
        Whether slices along the first of three axes are displaced against each other before they are coded; auto does it to the
        frames of a clip (axes "tyx") that are much more like each other then. Slices of volumes lose by it (docs/motion.md).
    tinc : TincOptions
    sci : SciOptions
    pyramid : PyramidOptions
    """

    target: Quality
    method: Method | None = None
    effort: int = 5
    device: str = "auto"
    seed: int = 0
    restoration: bool = True
    region: Region | None = None
    motion: bool | Literal["auto"] = "auto"
    tinc: TincOptions = field(default_factory=TincOptions)
    sci: SciOptions = field(default_factory=SciOptions)
    pyramid: PyramidOptions = field(default_factory=PyramidOptions)

    def __post_init__(self) -> None:
        if self.method is not None:
            _choice("method", self.method, get_args(Method))
        _whole("effort", self.effort, 1, 9)
        check_device(self.device)
        if not isinstance(self.restoration, bool):
            raise OptionError(f"expected restoration to be True or False, found {self.restoration!r}")
        if self.region is not None and not isinstance(self.region, Region):
            raise OptionError(f"expected region to be a Region or None, found {self.region!r}")
        _wish("motion", self.motion)
        if not isinstance(self.tinc, TincOptions):
            raise OptionError(f"expected tinc to be TincOptions, found {self.tinc!r}")
        if not isinstance(self.sci, SciOptions):
            raise OptionError(f"expected sci to be SciOptions, found {self.sci!r}")
        if not isinstance(self.pyramid, PyramidOptions):
            raise OptionError(f"expected pyramid to be PyramidOptions, found {self.pyramid!r}")
        if not _is_whole(self.seed) or not 0 <= self.seed < 2**63:
            raise OptionError(f"expected seed to be a whole number from 0 to 2**63 - 1, found {self.seed!r}")

    @property
    def asked(self) -> Method | None:
        """The method that is asked for, or the one whose options are given, if there is one."""
        plain: dict[Method, object] = {"tinc": TincOptions(), "sci": SciOptions(), "pyramid": PyramidOptions()}
        given = [name for name, options in plain.items() if getattr(self, name) != options]
        return self.method or (given[0] if len(given) == 1 else None)

    def to_dict(self) -> dict[str, Any]:
        """Return the choices as a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, choices: dict[str, Any]) -> EncodeOptions:
        """Inverse of `to_dict`; unknown names are refused."""
        plain = dict(_known(cls, choices))
        if "target" not in plain:
            raise OptionError("expected a target, found none; name its kind and value")
        plain["target"] = Quality(**_known(Quality, plain["target"]))
        if plain.get("region") is not None:
            plain["region"] = Region.from_dict(_known(Region, plain["region"]))
        if "tinc" in plain:
            plain["tinc"] = TincOptions.from_dict(plain["tinc"])
        if "sci" in plain:
            plain["sci"] = SciOptions.from_dict(plain["sci"])
        if "pyramid" in plain:
            plain["pyramid"] = PyramidOptions.from_dict(plain["pyramid"])
        return cls(**plain)

    @property
    def turns(self) -> int:
        """Rounds of rate-distortion optimised rounding."""
        return (self.effort + 1) // 2

    @property
    def sample_voxels(self) -> int:
        """Size of the sample that decisions are tried on."""
        return 1 << min(20 + self.effort // 2, 23)

    @property
    def restoration_steps(self) -> int:
        """Descent steps of the restoration network."""
        return round(500 * 2 ** ((self.effort - 5) / 1.5))

    @property
    def pyramid_steps(self) -> int:
        """Descent steps on a pyramid with the largest networks, on a processor with AVX2; smaller networks and faster processors take more in the time."""
        return round(300 * 2 ** ((self.effort - 5) / 1.5))

    @property
    def network_steps(self) -> int:
        """Most descent steps on private networks."""
        return 50 * 2 ** (self.effort - 1)

    @property
    def fit_steps(self) -> int:
        """Most descent steps on the shared segments."""
        return 60 * 2 ** (self.effort - 1) // 4


def one_target(**targets: float | None) -> Quality:
    """Return the single target given.

    Raises
    ------
    OptionError
        If none or several are given, or the value is not a positive number.
    """
    given: dict[str, Any] = {name: value for name, value in targets.items() if value is not None}
    names = " or ".join(f"{name}=" for name in get_args(QualityKind))
    if len(given) != 1:
        found = "none" if not given else ", ".join(f"{name}={value}" for name, value in given.items())
        raise OptionError(f"expected exactly one target, {names}, found {found}; keep one")
    (name, value), *_ = given.items()
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < 1e38:  # type: ignore[operator]
        raise OptionError(f"expected {name} to be a positive number, found {value!r}")
    return Quality(name, float(value))  # type: ignore[arg-type]


def check_device(device: str) -> None:
    """Refuse what names no device; whether the device is there shows when it is used."""
    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
        raise OptionError(f"expected device 'auto', 'cpu', 'cuda' or 'cuda:N', found {device!r}")


def _choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(f"expected {name} to be one of {', '.join(choices)}, found {value!r}")


def _wish(name: str, value: object) -> None:
    if not isinstance(value, bool) and value != "auto":
        raise OptionError(f"expected {name} to be True, False or 'auto', found {value!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(name: str, value: object, low: int, high: int) -> None:
    if not (isinstance(value, int) and _is_whole(value) and low <= value <= high):
        raise OptionError(f"expected {name} to be a whole number from {low} to {high}, found {value!r}")


def _number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise OptionError(f"expected {name} to be a finite number, found {value!r}")


def _between(name: str, value: float, low: float, high: float) -> None:
    _number(name, value)
    if not low <= value <= high:
        raise OptionError(f"expected {name} from {low} to {high}, found {value!r}")


def _known(cls: type, choices: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(choices) - {item.name for item in fields(cls)})
    if unknown:
        raise OptionError(f"expected names of {cls.__name__}, found {', '.join(unknown)}; remove them")
    return choices

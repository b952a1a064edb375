"""Every codec that is measured, one small file each, behind the interface of `base.Peer`."""

from __future__ import annotations

from .base import Peer, PeerError, QualityScale, UnreachableError
from .ffv1 import Ffv1
from .htj2k import Htj2k
from .jpeg2000 import Jpeg2000
from .jpegls import JpegLs
from .jpegxl import JpegXl
from .ours import PlainSiren, Pyramid, Sci, Tinc
from .sperr import Sperr
from .svtav1 import SvtAv1
from .sz3 import Sz3
from .vvenc import Vvenc
from .x264 import X264
from .x265 import X265
from .zfp import Zfp

__all__ = ["BASELINES", "METHODS", "PEERS", "Peer", "PeerError", "QualityScale", "UnreachableError", "make_peer"]

PEERS: dict[str, type[Peer]] = {
    peer.name: peer for peer in (X265, X264, SvtAv1, Vvenc, Jpeg2000, Htj2k, JpegXl, JpegLs, Sperr, Sz3, Zfp, Ffv1)
}
"""Other people's codecs, by the name on the command line."""

METHODS: dict[str, type[Peer]] = {"tinc": Tinc, "sci": Sci, "pyramid": Pyramid}
"""Our own methods."""

BASELINES: dict[str, type[Peer]] = {"siren": PlainSiren}
"""What our methods must beat; measured at their sizes."""


def make_peer(spec: str, order: str = "", threads: int = 1) -> Peer:
    """A codec from its name, with ``:variant`` for a preset, e.g. ``"x265:veryslow"``.

    Raises
    ------
    PeerError
        If the name or the variant is unknown.
    """
    name, _, variant = spec.partition(":")
    known = PEERS | METHODS | BASELINES
    if name not in known:
        raise PeerError(f"expected one of {', '.join(known)}, found {name!r}; put a preset behind a colon, e.g. x265:veryslow")
    if variant and variant not in known[name].variants:
        choices = ", ".join(filter(None, known[name].variants)) or "no variant"
        raise PeerError(f"{name}: expected {choices}, found {variant!r}")
    return known[name](variant, order, threads)

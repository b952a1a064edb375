"""Clips: any that FFmpeg reads, frame by frame, and written again. This module is the face of the others."""

from __future__ import annotations

from .header import ClipHeader, ColourInfo
from .read import CLIP_SUFFIXES, ClipReader, is_clip, probe
from .streams import OtherStream, StreamPacket
from .write import check_writable, write_clip

__all__ = [
    "CLIP_SUFFIXES",
    "ClipHeader",
    "ClipReader",
    "ColourInfo",
    "OtherStream",
    "StreamPacket",
    "check_writable",
    "is_clip",
    "probe",
    "write_clip",
]

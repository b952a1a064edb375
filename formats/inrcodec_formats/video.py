"""Clips: any that FFmpeg reads, frame by frame, and written again. This module is the face of the others."""

from __future__ import annotations

from .video_header import ClipHeader, ColourInfo
from .video_read import CLIP_SUFFIXES, ClipReader, is_clip, probe
from .video_streams import OtherStream, StreamPacket
from .video_write import check_writable, write_clip

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

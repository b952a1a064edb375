"""Every error this project raises on purpose.

Each child also subclasses the builtin a caller would naturally catch. Messages are one line: what was
expected, what was found, what to do.
"""


class InrcodecError(Exception):
    """Base of all errors raised on purpose by inrcodec."""


class OptionError(InrcodecError, ValueError):
    """A choice made by the caller is out of range or contradicts another one."""


class SignalError(InrcodecError, ValueError):
    """The samples cannot be coded as they are: shape, dtype or values."""


class FormatError(InrcodecError, ValueError):
    """A source file is not what its name or content claims, or cannot be represented."""


class ContainerError(InrcodecError, ValueError):
    """An ``.inrc`` stream is damaged, truncated, hostile or from an unknown version."""


class TargetError(InrcodecError, ValueError):
    """The requested size or quality cannot be reached for this signal.

    Attributes
    ----------
    least_bytes : float or None
        The smallest size that can be, where one was found.
    """

    def __init__(self, message: str, least_bytes: float | None = None) -> None:
        super().__init__(message)
        self.least_bytes = least_bytes


class OutputError(InrcodecError, OSError):
    """The output file cannot be written."""


class DeviceError(InrcodecError, RuntimeError):
    """A GPU has too little memory, failed, or went away."""

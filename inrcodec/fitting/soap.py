"""SOAP, the optimiser of SCI's networks and of the restoration; its definition is beside the kernels that take its steps."""

from inrcodec_kernels.siren.soap import Soap

__all__ = ["Soap"]

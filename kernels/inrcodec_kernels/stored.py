"""Device function shared by Triton kernels that write samples: from a float to the integer that is stored.

Imports Triton, so only `triton.py` modules import this one.
"""

import torch
import triton
import triton.language as tl

INTEGERS = (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32)
"""dtypes of boxes that get integers; a box of float32 gets the floats."""


@triton.jit
def stored(value, low, high):  # type: ignore[no-untyped-def]
    """float32 to int32: rounded half to even, then held within low..high, exactly for any 32-bit limits."""
    # Adding 2^23 leaves no bit for a fraction: the adder itself rounds, half to even. Larger floats are integers already.
    shift = tl.where(value < 0, -8388608.0, 8388608.0)
    rounded = tl.where(tl.abs(value) < 8388608.0, (value + shift) - shift, value)
    # The largest float32 below 2^31 is 2^31 - 128: what is beyond it can only become `high`.
    whole = tl.minimum(tl.maximum(rounded, -2147483648.0), 2147483520.0).to(tl.int32)
    whole = tl.where(rounded >= 2147483648.0, high, whole)
    return tl.minimum(tl.maximum(whole, low), high)

"""What is computed again and again: the same results, of what is given each time. Devices record it; here parts are launched."""

from __future__ import annotations

import torch

from inrcodec_kernels.recorded import Repeated, constant


def test_results_are_of_what_is_given() -> None:
    calls = []

    def compute(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        calls.append((a, b))
        return a * b, [a + b]

    repeated = Repeated(compute)
    for number in range(4):
        a, b = torch.full((2, 3), float(number)), torch.arange(3.0)
        product, (total,) = repeated([a, b])
        assert torch.equal(product, a * b) and torch.equal(total, a + b)
        # What a caller does with its tensors, and with the results, does not matter to the next call.
        a.fill_(-1), product.fill_(-1)
    first, second, *later = calls
    assert len(calls) == 4 and second[0] is not first[0] and all(call[0] is second[0] for call in later)


def test_constants_are_made_once() -> None:
    device = torch.device("cpu")
    found = constant((1, 2), torch.int32, device)
    assert found.tolist() == [1, 2] and found is constant((1, 2), torch.int32, device)
    assert constant((1, 2), torch.int64, device).dtype == torch.int64

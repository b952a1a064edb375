"""SOAP: the published rule for every matrix of a batch by itself, and faster than Adam where scales are mixed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from inrcodec.fitting.soap import Soap

Loss = Callable[[Tensor], Tensor]


def quadratics(n: int, rows: int, columns: int, seed: int, condition: float = 100.0) -> tuple[Tensor, Loss]:
    """Start and losses (n,) of |L (W - W*) R|^2, whose sides are rotated and badly scaled."""
    random = torch.Generator().manual_seed(seed)

    def side(size: int) -> Tensor:
        turn = torch.linalg.qr(torch.randn(n, size, size, generator=random, dtype=torch.float64))[0]
        return turn * torch.logspace(0, -math.log10(condition) / 2, size, dtype=torch.float64)[None, :, None]

    left, right = side(rows), side(columns).mT
    goal = torch.randn(n, rows, columns, generator=random, dtype=torch.float64)
    return torch.zeros_like(goal), lambda w: (left @ (w - goal) @ right).square().sum((1, 2))


def jitter(shape: torch.Size, steps: int, seed: int = 0) -> Tensor:
    """What samples drawn anew add to the gradients. Without it the first moves follow rounding errors: in the basis of
    the gradient itself all but its diagonal vanishes."""
    return 0.3 * torch.randn(steps, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def descend(
    weights: list[Tensor],
    loss: Callable[[list[Tensor]], Tensor],
    steps: int,
    rate: float,
    noise: list[Tensor] | None = None,
) -> Tensor:
    weights = [w.clone().requires_grad_(True) for w in weights]
    optimiser = Soap(weights)
    for step in range(steps):
        for w in weights:
            w.grad = None
        loss(weights).sum().backward()
        for w, extra in zip(weights, noise or [], strict=noise is not None):
            w.grad += extra[step]
        optimiser.step(rate * (1 - step / steps))
    return torch.cat([w.detach().flatten(1) for w in weights], dim=1)


def adam(start: Tensor, loss: Loss, steps: int, rate: float) -> Tensor:
    weight = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([weight], lr=rate, betas=(0.95, 0.95))
    for step in range(steps):
        optimiser.zero_grad()
        loss(weight).sum().backward()
        optimiser.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimiser.step()
    return weight.detach()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(6, 6), (12, 5), (5, 8)])
def test_faster_than_adam_on_rotated_quadratics(shape: tuple[int, int], seed: int) -> None:
    start, loss = quadratics(8, *shape, seed, condition=1000.0)
    rates = (0.1, 0.2, 0.3)
    ours = torch.stack([loss(descend([start], lambda w: loss(w[0]), 120, r).view_as(start)) for r in rates])
    others = torch.stack([loss(adam(start, loss, 120, r)) for r in rates])
    # Each at its own best rate; and at every rate no block blows up.
    assert ours.mean(1).min() < 0.5 * others.mean(1).min()
    assert torch.all(ours < 0.1 * loss(start))


def plain(start: np.ndarray, gradient: Callable[[np.ndarray, int], np.ndarray], steps: int, rate: float) -> np.ndarray:
    """Algorithm 3 of the paper for one matrix, Adam's bias corrections included; moments of gradients unrotated."""
    weight, b, every = start.copy(), 0.95, 10
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    sides: list[np.ndarray] = []
    bases: list[np.ndarray] = []
    for step in range(steps):
        g = gradient(weight, step)
        fresh = [g @ g.T, g.T @ g]
        if step == 0:
            sides, bases = fresh, [np.linalg.eigh(s)[1][:, ::-1] for s in fresh]
            continue
        sides = [b * s + (1 - b) * f for s, f in zip(sides, fresh, strict=True)]
        u, v = bases
        first = b * first + (1 - b) * g
        second = b * second + (1 - b) * (u.T @ g @ v) ** 2
        rotated = u.T @ first @ v / (1 - b**step)
        weight = weight - rate * (1 - step / steps) * u @ (rotated / np.sqrt(second / (1 - b**step))) @ v.T
        if (step + 1) % every == 0:
            orders = [np.argsort(-np.diag(q.T @ s @ q)) for s, q in zip(sides, bases, strict=True)]
            second = second[np.ix_(*orders)]
            bases = [np.linalg.qr(s @ q[:, o])[0] for s, q, o in zip(sides, bases, orders, strict=True)]
    return weight


@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (3, 5)])
def test_every_matrix_follows_the_plain_rule(shape: tuple[int, int]) -> None:
    start, loss = quadratics(5, *shape, 3, condition=10.0)
    noise = jitter(start.shape, 45)
    found = descend([start], lambda w: loss(w[0]), 45, 0.05, [noise]).view_as(start).numpy()
    for k in range(5):

        def gradient(w: np.ndarray, step: int, k: int = k) -> np.ndarray:
            whole = start.clone()
            whole[k] = torch.from_numpy(w)
            whole.requires_grad_(True)
            loss(whole).sum().backward()
            assert whole.grad is not None
            return (whole.grad[k] + noise[step, k]).numpy()

        expected = plain(start[k].numpy(), gradient, 45, 0.05)
        assert np.abs(expected).max() > 0.3
        if shape[0] == shape[1]:
            assert found[k] == pytest.approx(expected, abs=1e-6)
        else:
            # The first gradient leaves directions open on the longer side, which solvers pick as they like.
            assert found[k] == pytest.approx(expected, abs=0.5)


def test_members_of_a_batch_do_not_touch_each_other() -> None:
    start, loss = quadratics(4, 4, 4, 1, condition=10.0)
    scale = torch.tensor([1.0, 1e-4, 1e4, 1.0], dtype=torch.float64)
    noise = jitter(start.shape, 60) * scale[:, None, None]
    together = descend([start], lambda w: loss(w[0]) * scale, 60, 0.05, [noise])
    for k in range(4):

        def alone(w: list[Tensor], k: int = k) -> Tensor:
            whole = torch.cat([start[:k], w[0], start[k + 1 :]])
            return loss(whole)[k : k + 1] * scale[k]

        found = descend([start[k : k + 1]], alone, 60, 0.05, [noise[:, k : k + 1]])
        assert torch.allclose(found[0], together[k], atol=1e-6)


def test_parameters_do_not_touch_each_other() -> None:
    (a, loss_a), (b, loss_b) = quadratics(3, 5, 5, 1), quadratics(3, 3, 3, 2)
    noise = [jitter(a.shape, 40), jitter(b.shape, 40, 1)]
    both = descend([a, b], lambda w: loss_a(w[0]) + loss_b(w[1]), 40, 0.05, noise)
    alone = [
        descend([a], lambda w: loss_a(w[0]), 40, 0.05, noise[:1]),
        descend([b], lambda w: loss_b(w[0]), 40, 0.05, noise[1:]),
    ]
    assert torch.allclose(both, torch.cat(alone, dim=1), atol=1e-6)


def test_steps_do_not_depend_on_the_scale_of_the_loss() -> None:
    start, loss = quadratics(3, 4, 4, 4, condition=10.0)
    noise = jitter(start.shape, 50)
    usual = descend([start], lambda w: loss(w[0]), 50, 0.05, [noise])
    tiny = descend([start], lambda w: loss(w[0]) * 1e-6, 50, 0.05, [noise * 1e-6])
    assert torch.allclose(usual, tiny, atol=1e-6)


def test_the_first_step_only_looks() -> None:
    start, loss = quadratics(2, 3, 3, 5)
    weight = start.clone().requires_grad_(True)
    optimiser = Soap([weight])
    loss(weight).sum().backward()
    optimiser.step(0.1)
    assert torch.equal(weight.detach(), start)
    optimiser.step(0.1)
    assert not torch.equal(weight.detach(), start)


def test_no_gradient_no_move() -> None:
    """A block whose gradient vanishes, beside one that has some; in single precision, as in a fit."""
    start = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    live = torch.tensor([0.0, 1.0])
    found = descend([start], lambda w: w[0].square().sum((1, 2)) * live, 60, 0.05).view_as(start)
    assert torch.all(torch.isfinite(found))
    assert torch.equal(found[0], start[0]) and found[1].square().sum() < 0.5 * start[1].square().sum()

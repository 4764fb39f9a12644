"""Large tensors are walked in stretches: the variants' formulas hold in each of them."""

from functools import partial

import pytest
import torch

from flatmin import GSAM, WSAM


@pytest.mark.parametrize("shape", [(600, 700), (1030, 1040)], ids=["a stretch", "several"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex128])
def test_a_large_tensor_is_walked_in_stretches(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    g, s = torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)
    product = torch.dot(*(torch.view_as_real(t + 0j).double().reshape(-1) for t in (g, s)))
    square = s.abs().double().square().sum()
    expected = {
        partial(GSAM, alpha=0.7): s - 0.7 * (g - (product / square).to(s.real.dtype) * s),
        partial(WSAM, gamma=0.75, decoupled=False): 3.0 * s - 2.0 * g,
        partial(WSAM, gamma=0.75): g + 3.0 * (s - g),
        partial(WSAM, gamma=0.0, decoupled=False): g,
    }
    for make, step in expected.items():
        w = torch.nn.Parameter(torch.zeros(shape, dtype=dtype))
        optimizer = make(torch.optim.SGD([w], lr=1.0), 0.3)
        w.grad = g.clone()
        with optimizer.perturbed():
            climb = 0.3 * g / torch.linalg.vector_norm(g)
            torch.testing.assert_close(
                w.detach(), climb, rtol=64 * torch.finfo(dtype).eps, atol=0.0
            )
            w.grad = s.clone()
        optimizer.step()
        torch.testing.assert_close(-w, step, rtol=0, atol=64 * torch.finfo(dtype).eps)

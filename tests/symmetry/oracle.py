"""The true number of factors under which a network stays the same, from linear algebra."""

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from flatmin.symmetry import Scalings
from flatmin.symmetry.evaluate import arguments, tensors_in


def _coordinates(model: nn.Module) -> dict[str, Tensor]:
    """One logarithm per parameter entry, and one per channel of running statistics."""
    found = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for path, module in model.named_modules():
        if getattr(module, "running_var", None) is not None:
            found[f"{path}.statistics"] = torch.zeros_like(module.running_var)
    return found


def _state(model: nn.Module, base: Mapping[str, Tensor], logs: Mapping[str, Tensor]) -> Any:
    """The mean moves by a factor, ``var + eps`` by its square; see ``Slot``."""
    state = {}
    for name, tensor in base.items():
        path, _, last = name.rpartition(".")
        if name in logs:
            state[name] = tensor * logs[name].exp()
        elif last == "running_mean":
            state[name] = tensor * logs[f"{path}.statistics"].exp()
        elif last == "running_var":
            eps = model.get_submodule(path).eps
            state[name] = (tensor + eps) * (2 * logs[f"{path}.statistics"]).exp() - eps
    return state


def _batch_norm(x: Tensor, mean: Tensor, var: Tensor, gain: Any, bias: Any, *rest: Any) -> Tensor:
    """As torch's in eval mode, and differentiable in the statistics."""
    shape = [-1, *[1] * (x.ndim - 2)]
    eps = rest[2] if len(rest) > 2 else 1e-5
    y = (x - mean.view(shape)) / (var.view(shape) + eps).sqrt()
    y = y if gain is None else y * gain.view(shape)
    return y if bias is None else y + bias.view(shape)


def derivatives(model: nn.Module, example: Any, rows: int, seed: int = 0) -> Tensor:
    r"""Rows r of J(w) diag(w), one at each of many random points, of shape ``(rows, entries)``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    args, kwargs = arguments(example)
    base = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    found = []
    for _ in range(rows):
        logs = {k: v.clone().requires_grad_() for k, v in _coordinates(model).items()}
        point = {
            name: (t.detach() + 0.3 * normal(t) if name in logs else t.detach())
            for name, t in base.items()
        }
        inputs = [_drawn(x, generator) for x in args]
        named = {key: _drawn(x, generator) for key, x in kwargs.items()}
        with patch.object(F, "batch_norm", _batch_norm):
            output = functional_call(model, _state(model, point, logs), tuple(inputs), named)
        outputs = [each.flatten() for each in tensors_in(output)]
        total = torch.cat(outputs)
        (total @ normal(total)).backward()
        columns = [
            (torch.zeros_like(v) if v.grad is None else v.grad).flatten() for v in logs.values()
        ]
        found.append(torch.cat(columns))
    return torch.stack(found)


def _drawn(x: Tensor, generator: torch.Generator) -> Tensor:
    if x.is_floating_point():
        drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return drawn * x.square().mean().sqrt()
    return x.flatten()[torch.randperm(x.numel(), generator=generator)].view(x.shape)


def directions(model: nn.Module, scalings: Scalings) -> Tensor:
    """The logarithms of every unit that was found, of shape ``(units, entries)``."""
    rows = []
    for group in scalings.groups:
        for unit in range(group.size):
            logs = _coordinates(model)
            for slot in group.slots:
                name = slot.name.replace("running_mean", "statistics")
                if name in logs:
                    here = (slot.units == unit).to(logs[name].dtype) * slot.power
                    logs[name] = logs[name] + here.expand(logs[name].shape)
            rows.append(torch.cat([log.flatten() for log in logs.values()]))
    count = sum(log.numel() for log in _coordinates(model).values())
    return torch.stack(rows) if rows else torch.zeros(0, count, dtype=torch.float64)


def dimensions(model: nn.Module, example: Any, scalings: Scalings) -> tuple[int, int, float, float]:
    """Return the true and the found number of factors, and the gap in the singular values.

    Parameters without any effect are left out; torch's keys have a bias that a softmax undoes.
    """
    entries = sum(v.numel() for v in _coordinates(model).values())
    matrix = derivatives(model, example, entries + 10)
    size = matrix.norm(dim=0)
    alive = size > 1e-9 * size.max()
    unit = matrix[:, alive] / size[alive]
    values = torch.linalg.svdvals(unit)
    values = values / values.max()
    null = int((values < 1e-8).sum())
    below = float(values[len(values) - null :].max()) if null else 0.0
    above = float(values[: len(values) - null].min())
    made = directions(model, scalings)
    assert float((matrix @ made.T).abs().max() if len(made) else 0.0) < 1e-9 * float(size.max())
    found = int(torch.linalg.matrix_rank(made[:, alive], tol=1e-8)) if len(made) else 0
    return null, found, below, above

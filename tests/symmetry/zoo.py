"""Small networks in current styles, of which the scaling symmetries are counted exactly."""

from typing import Any

import torch
from torch import nn
from zoo_images import IMAGES
from zoo_parts import Entry
from zoo_sequences import SEQUENCES
from zoo_vectors import PERCEPTRONS
from zoo_weights import RESIDUAL

ZOO: dict[str, Entry] = PERCEPTRONS | RESIDUAL | IMAGES | SEQUENCES


def built(name: str) -> tuple[nn.Module, Any]:
    """A float64 network in eval mode, with ordinary numbers everywhere, and an input."""
    torch.manual_seed(0)
    make, example = ZOO[name]
    model = make().double().eval()
    inputs = example()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(torch.randn_like(tensor) * (0.5 if tensor.ndim > 1 else 0.3) + 0.1)
        for key, buffer in model.named_buffers():
            if key.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    if isinstance(inputs, dict):
        return model, {key: value.double() for key, value in inputs.items()}
    return model, inputs.double() if inputs.is_floating_point() else inputs

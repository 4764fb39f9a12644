"""What strangers hand to a loss: refused in one sentence with the remedy."""

from collections import UserDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flatmin import EmpiricalLoss, Identity
from flatmin.sharpness import hessian_trace

X, Y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])


def network() -> nn.Module:
    return nn.Linear(4, 3)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((X, Y, Y), "got tuple of 3"),
        ((X.numpy(), Y.numpy()), "got targets of type ndarray"),
        ((X.numpy(), Y), "convert them by torch.as_tensor"),
        (X, "got Tensor; batches are a list of such pairs"),
        (UserDict(x=X, labels=Y), r"as in \(batch, batch\['labels'\]\)"),
    ],
)
def test_what_is_no_batch(batch: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        EmpiricalLoss(network(), F.cross_entropy, [batch])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.CrossEntropyLoss, r"make one, as in CrossEntropyLoss\(\)"),
        ("cross_entropy", "such as torch.nn.functional.cross_entropy, got str"),
    ],
)
def test_what_is_no_loss_function(loss: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        EmpiricalLoss(network(), loss, [(X, Y)])


@pytest.mark.parametrize("flat", [True, False])
def test_a_loss_of_all_pairs_of_examples(flat: bool) -> None:
    """Outputs (6, 1) and targets (6,) broadcast to (6, 6); torch only warns."""
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0) if flat else nn.Identity())
    good, bad = (Y.float(), Y.float()[:, None])[:: 1 if flat else -1]
    for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss):
        EmpiricalLoss(model, loss, [(X, good)])
        with pytest.raises(
            ValueError, match="must have one shape, or the loss is one of all pairs"
        ):
            EmpiricalLoss(model, loss, [(X, bad)])


def test_weights_without_numbers() -> None:
    with pytest.raises(ValueError, match="'weight' is on the meta device; load the weights first"):
        EmpiricalLoss(network().to("meta"), F.cross_entropy, [(X, Y)])


def test_seeds_and_names_in_the_place_of_objects() -> None:
    loss = EmpiricalLoss(network(), F.cross_entropy, [(X, Y)])
    wrong: Any
    for wrong in (3, "cpu"):
        with pytest.raises(TypeError, match=r"write torch.Generator\(\).manual_seed\(seed\)"):
            hessian_trace(loss, loss.params, generator=wrong)
    for wrong in ("identity", Identity):
        with pytest.raises(TypeError, match="scale must be a map T_w, such as Elementwise"):
            hessian_trace(loss, loss.params, scale=wrong)


@pytest.mark.parametrize("batches", [None, lambda: [(X, Y)]])
def test_what_holds_no_batches(batches: Any) -> None:
    with pytest.raises(TypeError, match="batches must be a list of pairs"):
        EmpiricalLoss(network(), F.cross_entropy, batches)

"""Find the symmetries of an ordinary network by tracing it."""

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from flatmin.symmetry.evaluate import same_randomness
from flatmin.symmetry.groups import Group, Stop
from flatmin.symmetry.rules import rule_of
from flatmin.symmetry.symmetries import Flips, Permutations, Scalings
from flatmin.symmetry.walk import Kind, Walk

Example = Tensor | tuple[Any, ...]


def find_scalings(model: nn.Module, example: Example, *, opaque: Sequence[str] = ()) -> Scalings:
    r"""Find every group of units that may be rescaled without changing the function.

    .. math:: f(\tau z) = \tau f(z) \;\Rightarrow\; W_2\, f(W_1 x) = (W_2 / \tau)\, f(\tau W_1 x)

    The model is traced with ``torch.fx`` in its present mode, and run once on ``example`` for the
    shapes; both happen on a copy. What cannot be proven is not offered. Layers joined by residual
    additions form one group, with one factor per channel for all of them. In eval mode the running
    statistics of a BatchNorm belong to its group, and ``var + eps`` is what scales, so a running
    variance may come to lie below zero, never below ``-eps``. In train mode BatchNorm undoes a
    scale exactly for ``eps = 0`` only.

    Args:
        model: Any module that ``torch.fx`` can trace. Read, never written.
        example: An input, or a tuple of inputs; its values do not matter, its shape does.
        opaque: Names of submodules to leave untraced, such as one that branches on its data.
            Nothing that enters them is offered.

    Returns:
        The groups, and each layer that stopped one, with the reason; ``print`` shows a table.

    Raises:
        ValueError: If the model cannot be traced or run.

    Example:
        >>> relu = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> print(find_scalings(relu, torch.zeros(1, 2)))
        Scalings: 1 group
          0: 3 units of 0, read by 2
        stopped: 1
          2: these units are outputs of the model (output)
        >>> gelu = nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 1))
        >>> find_scalings(gelu, torch.zeros(1, 2)).stopped[0].reason
        'GELU does not commute with positive scaling'

    Source:
        Neyshabur et al. 2015, arXiv:1506.02617, section 3, for ReLU networks.
    """
    return Scalings(*_find("scale", model, example, opaque))


def find_permutations(
    model: nn.Module, example: Example, *, opaque: Sequence[str] = ()
) -> Permutations:
    """Find every group of units that may be reordered without changing the function.

    Valid for any activation that treats all units alike, GELU and tanh included.

    Args:
        model: As for ``find_scalings``.
        example: As for ``find_scalings``.
        opaque: As for ``find_scalings``.

    Returns:
        The groups, and each layer that stopped one.

    Raises:
        ValueError: If the model cannot be traced or run.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 1))
        >>> [group.size for group in find_permutations(model, torch.zeros(1, 2)).groups]
        [3]
    """
    return Permutations(*_find("permute", model, example, opaque))


def find_flips(model: nn.Module, example: Example, *, opaque: Sequence[str] = ()) -> Flips:
    """Find every group of units whose sign may be changed: odd activations, or none at all.

    Args:
        model: As for ``find_scalings``.
        example: As for ``find_scalings``.
        opaque: As for ``find_scalings``.

    Returns:
        The groups, and each layer that stopped one.

    Raises:
        ValueError: If the model cannot be traced or run.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> [group.size for group in find_flips(model, torch.zeros(1, 2)).groups]
        [3]
    """
    return Flips(*_find("flip", model, example, opaque))


def _find(
    kind: Kind, model: nn.Module, example: Example, opaque: Sequence[str]
) -> tuple[tuple[Group, ...], tuple[Stop, ...]]:
    missing = set(opaque) - {name for name, _ in model.named_modules()}
    if missing:
        raise ValueError(f"opaque names {sorted(missing)}, which the model does not have")
    twin = copy.deepcopy(model)  # tracing may leave constants behind, running moves statistics
    graph = _trace(twin, opaque)
    walk = Walk(kind, graph, twin, _shapes(twin, graph, example), _sharing_memory(model))
    walk.run(graph, rule_of)
    return walk.groups(), walk.stopped()


class _Tracer(fx.Tracer):
    def __init__(self, opaque: Sequence[str]):
        super().__init__()
        self.opaque = opaque

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.opaque or super().is_leaf_module(
            m, module_qualified_name
        )


def _trace(model: nn.Module, opaque: Sequence[str]) -> fx.Graph:
    try:
        return _Tracer(opaque).trace(model)
    except Exception as error:
        raise ValueError(
            f"torch.fx cannot trace {type(model).__name__}: {error}. Name the submodule that "
            "branches on its data in opaque=[...]; nothing that enters it will be offered"
        ) from error


class _ShapeRecorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule):
        super().__init__(module)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.shapes[n.name] = tuple(result.shape)
        return result


def _shapes(model: nn.Module, graph: fx.Graph, example: Example) -> dict[str, tuple[int, ...]]:
    inputs = example if isinstance(example, tuple) else (example,)
    recorder = _ShapeRecorder(fx.GraphModule(model, graph))
    with same_randomness(model), torch.no_grad():
        try:
            recorder.run(*inputs)
        except Exception as error:
            raise ValueError(
                f"{type(model).__name__} does not run on the example, of shapes "
                f"{[tuple(getattr(x, 'shape', ())) for x in inputs]}: {error}"
            ) from error
    return recorder.shapes


def _sharing_memory(model: nn.Module) -> set[str]:
    # Two Parameters over one memory are tied, though they are two objects.
    named = [*model.named_parameters(), *model.named_buffers()]
    places = Counter(tensor.data_ptr() for _, tensor in named if tensor.numel())
    return {name for name, t in named if t.numel() and t.data_ptr() and places[t.data_ptr()] > 1}

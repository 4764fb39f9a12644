"""The scale with which a radius means the same at every width."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy

from flatmin._types import Params

Fans = tuple[float, float]
"""How many units a weight leads from, and to."""


def _rows(weight: Tensor) -> Fans:
    return weight[0].numel(), len(weight)


def _transposed(weight: Tensor) -> Fans:
    return weight[:, 0].numel(), weight.shape[1]


def _table(weight: Tensor) -> Fans:
    return 1, weight.shape[1]  # one row is looked up at a time


_KINDS: tuple[tuple[tuple[type[nn.Module], ...], Callable[[Tensor], Fans]], ...] = (
    ((_ConvTransposeNd,), _transposed),
    ((nn.Linear, _ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention), _rows),
    ((nn.Embedding, nn.EmbeddingBag), _table),
)


@dataclass(frozen=True)
class Spectral:
    r"""Each tensor moves as its layer has to, so that one radius serves every width.

    .. math:: T_w = \operatorname{diag}\bigl(\sqrt{n_\text{out} / n_\text{in}}\bigr)

    constant on each tensor, with the numbers of units that it leads from and to. For a vector, such
    as a bias or the gains of a normalization layer, that is the root of its length. In a network
    that is parametrized by width as in μP, the shift then changes what each layer computes by as
    much at any width, where that of ``Identity`` is one of the last layer alone in the limit.

    This is what the spectral condition for feature learning asks of a shift; the evidence that
    radii transfer is of the authors of μP² alone, as far as we know. It says nothing of learning
    rates, which need the same care.

    Args:
        factors: T by name of parameter; ``Spectral.of`` makes them of a network.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.LayerNorm(16), nn.Linear(16, 1))
        >>> {name: round(t, 3) for name, t in Spectral.of(model).factors}
        ... # doctest: +NORMALIZE_WHITESPACE
        {'0.weight': 2.0, '0.bias': 4.0, '1.weight': 4.0, '1.bias': 4.0, '2.weight': 0.25,
         '2.bias': 1.0}

    Source:
        Haas et al. 2024, arXiv:2411.00075; derived from the condition of Yang et al. 2023,
        arXiv:2310.17813, and not compared with the table of the former.
    """

    factors: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, model: nn.Module, fans: Mapping[str, Fans] | None = None) -> Spectral:
        """Read from the modules of a network how many units each of its tensors leads from and to.

        Args:
            model: The network; parameters keep the names that they have in it.
            fans: ``(fan_in, fan_out)`` by name for tensors of modules that are not torch's, and for
                one that two modules share.

        Returns:
            The scale.

        Raises:
            TypeError: If ``model`` is no module.
            ValueError: If a tensor of two dimensions or more belongs to a module of another kind,
                two modules share one and differ in it, or ``fans`` has other names or no counts.

        Example:
            An embedding that is also the last layer leads from one row, and from all units.

            >>> model = nn.ModuleDict({"rows": nn.Embedding(9, 4), "head": nn.Linear(4, 9, False)})
            >>> model["head"].weight = model["rows"].weight
            >>> Spectral.of(model)  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            ValueError: 'rows.weight' is a tensor of two modules, ...
            >>> Spectral.of(model, {"rows.weight": (1, 4)}).factors
            (('rows.weight', 2.0),)
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}.")
        given = dict(fans or {})
        names = {p: name for name, p in model.named_parameters()}
        unknown = sorted(given.keys() - names.values())
        if unknown:
            raise ValueError(f"fans names {unknown[0]!r}, which is no parameter of the model.")
        found: dict[str, float] = {}
        for module in model.modules():
            for p in module._parameters.values():
                if p is None or names[p] in given:
                    continue
                factor = _factor(names[p], p, module)
                if not math.isclose(found.setdefault(names[p], factor), factor):
                    raise ValueError(
                        f"{names[p]!r} is a tensor of two modules, which lead from and to other "
                        f"numbers of units; say which count: fans={{{names[p]!r}: (fan_in, "
                        "fan_out)}."
                    )
        found |= {name: _root(name, *both) for name, both in given.items()}
        return cls(tuple((name, found[name]) for name in names.values()))

    @cached_property
    def _by_name(self) -> dict[str, float]:
        return dict(self.factors)

    def __call__(self, params: Params, *, leading: int = 0) -> dict[str, Tensor]:
        """Give the factor of each tensor."""
        return {name: w.new_full((1,) * w.ndim, self.alike(name)) for name, w in params.items()}

    def alike(self, name: str) -> float:
        """Tensors with the same factor are; ``ValueError`` for one that the network had not."""
        try:
            return self._by_name[name]
        except KeyError:
            raise ValueError(
                f"Spectral knows no parameter {name!r}: give the optimizer "
                "model.named_parameters() of the network that the scale was made of, "
                f"whose first one is {next(iter(self._by_name), None)!r}."
            ) from None


def _factor(name: str, p: Tensor, module: nn.Module) -> float:
    if is_lazy(p):
        raise ValueError(f"{name!r} waits for a first batch; call the network on one before.")
    if p.ndim < 2:
        return math.sqrt(p.numel())
    for kinds, fans in _KINDS:
        if isinstance(module, kinds):
            return _root(name, *fans(p))
    raise ValueError(
        f"{name!r} is a tensor of a {type(module).__name__}, of which nobody here knows how many "
        f"units it leads from and to; say it: fans={{{name!r}: (fan_in, fan_out)}}."
    )


def _root(name: str, fan_in: float, fan_out: float) -> float:
    if not (0 < fan_in < math.inf and 0 < fan_out < math.inf):
        raise ValueError(f"fans of {name!r} must be two counts above 0, got {(fan_in, fan_out)}.")
    return math.sqrt(fan_out / fan_in)

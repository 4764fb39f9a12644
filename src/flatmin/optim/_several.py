"""Several optimizers shown as one: Muon for matrices and AdamW for the rest, say."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

_STANDARD = ("state", "param_groups")


class Several(Optimizer):
    """Optimizers over different parameters, whose groups are one list and which step together.

    The optimizers stay what they are: their groups are shown, not copied, and the hooks of each
    fire with its own step. A state dict has torch's form, with the parameters numbered through.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        """Take the optimizers in this order."""
        self.optimizers = tuple(optimizers)
        self._optimizer_step_pre_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()
        self._optimizer_step_post_hooks: OrderedDict[int, Callable[..., Any]] = OrderedDict()
        seen: set[Tensor] = set()
        for group in self.param_groups:
            for p in group["params"]:
                if p in seen:
                    raise ValueError(
                        f"a parameter of shape {tuple(p.shape)} is in two of the optimizers, which "
                        "would both move it; give each parameter to one."
                    )
                seen.add(p)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all, in order."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        start = 0
        for optimizer in self.optimizers:
            count = len(optimizer.param_groups)
            optimizer.param_groups = groups[start : start + count]
            start += count

    @property  # type: ignore[override]  # torch has an attribute
    def state(self) -> dict[Tensor, Any]:
        """The states of all; a new dictionary of the same entries."""
        return {p: s for optimizer in self.optimizers for p, s in optimizer.state.items()}

    @state.setter
    def state(self, state: dict[Tensor, Any]) -> None:
        for optimizer in self.optimizers:
            own = {id(p) for group in optimizer.param_groups for p in group["params"]}
            optimizer.state.clear()
            optimizer.state.update({p: s for p, s in state.items() if id(p) in own})

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]  # an attribute in torch
        """The defaults of all; the first one counts where they differ."""
        return {
            k: v for optimizer in reversed(self.optimizers) for k, v in optimizer.defaults.items()
        }

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # takes none
        """Step all of them with the gradients that are there."""
        for hook in self._optimizer_step_pre_hooks.values():
            hook(self, (), {})
        for optimizer in self.optimizers:
            optimizer.step()
        for hook in self._optimizer_step_post_hooks.values():
            hook(self, (), {})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse: which one is meant?"""
        raise TypeError(
            "a group belongs to one of the optimizers: call add_param_group() of that one, and "
            "wrap them anew."
        )

    def state_dict(self) -> dict[str, Any]:
        """One state dict, in which the parameters are numbered through."""
        merged: dict[str, Any] = {"state": {}, "param_groups": []}
        more, start = [], 0
        for optimizer in self.optimizers:
            part = optimizer.state_dict()
            merged["state"].update({_shifted(k, start): v for k, v in part["state"].items()})
            for group in part["param_groups"]:
                merged["param_groups"].append(
                    {**group, "params": [_shifted(k, start) for k in group["params"]]}
                )
            more.append({k: v for k, v in part.items() if k not in _STANDARD})
            start += _count(optimizer)
        return {**merged, "more": more} if any(more) else merged

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` gave, each optimizer its own part."""
        groups = state_dict["param_groups"]
        wanted = [len(optimizer.param_groups) for optimizer in self.optimizers]
        if len(groups) != sum(wanted):
            raise ValueError(
                f"the state dict has {len(groups)} groups, and the optimizers {sum(wanted)}; load "
                "it into the same optimizers in the same order."
            )
        more = state_dict.get("more", [{} for _ in self.optimizers])
        start = first = 0
        for optimizer, count, rest in zip(self.optimizers, wanted, more, strict=True):
            size = _count(optimizer)
            own = [
                {**group, "params": [_shifted(k, -start) for k in group["params"]]}
                for group in groups[first : first + count]
            ]
            state = {
                _shifted(k, -start): v
                for k, v in state_dict["state"].items()
                if not isinstance(k, int) or start <= k < start + size
            }
            optimizer.load_state_dict({**rest, "state": state, "param_groups": own})
            start, first = start + size, first + count

    def __getattr__(self, name: str) -> Any:
        # What some of them can do beyond a torch optimizer, those do that can.
        if name.startswith("_") or name == "optimizers":
            raise AttributeError(name)
        found = [
            getattr(optimizer, name) for optimizer in self.optimizers if hasattr(optimizer, name)
        ]
        if not found or not all(callable(method) for method in found):
            raise AttributeError(f"none of the optimizers has a method {name!r}.")

        def each(*args: Any, **kwargs: Any) -> None:
            for method in found:
                method(*args, **kwargs)

        return each

    def __getstate__(self) -> dict[str, Any]:
        """Plain attributes; torch's own would ask for groups of its own."""
        return dict(self.__dict__)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _shifted(key: Any, by: int) -> Any:
    return key + by if isinstance(key, int) else key


def _count(optimizer: Optimizer) -> int:
    return sum(len(group["params"]) for group in optimizer.param_groups)

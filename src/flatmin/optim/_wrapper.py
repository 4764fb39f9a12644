"""A torch optimizer that shows another one's groups, state, hooks and methods as its own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from torch.optim import Optimizer

from flatmin.optim import _sharded
from flatmin.optim._gradients import parameters
from flatmin.optim._groups import are_complete, are_unscaled_now, complete, refuse_foreign
from flatmin.optim._visit import Visit

# The base owns its hooks; the wrapper shows the same dictionaries, so that each fires once.
_HOOKS = frozenset(
    {
        "_optimizer_step_pre_hooks",
        "_optimizer_step_post_hooks",
        "_optimizer_state_dict_pre_hooks",
        "_optimizer_state_dict_post_hooks",
        "_optimizer_load_state_dict_pre_hooks",
        "_optimizer_load_state_dict_post_hooks",
    }
)

# What the loops around the widespread `sam.py` call, and what to write instead.
_IN_THE_MIDDLE = "for a step that is left in the middle would leave the weights perturbed"
_ELSEWHERE = {
    "first_step": f"{_IN_THE_MIDDLE}: write `with optimizer.perturbed():` around the second "
    "forward and backward pass",
    "second_step": f"{_IN_THE_MIDDLE}: write `optimizer.step()` behind the block `with "
    "optimizer.perturbed():`",
    "base_optimizer": "for it is called base; a scheduler takes the wrapper itself",
    "rho": "for each group has a radius of its own: write group['sam_rho'] = ... for each group in "
    "optimizer.param_groups, and read it there",
}


class Wrapper(Optimizer):
    """The part of a wrapper that only points to its base.

    The base owns groups, state, defaults and hooks. They are read through properties rather than
    copied, since ``load_state_dict`` of the base, called by whomever, replaces them. What the base
    can do beyond a torch optimizer (``train()`` and ``eval()`` of schedule-free ones,
    ``consolidate_state_dict`` of sharded ones) is found there too. Own are only the settings that
    each group has beside the base's, and how far a visit to the perturbed point is.
    """

    __signature__: inspect.Signature
    base: Optimizer
    _visit: Visit
    _group_defaults: dict[str, float]

    def __init_subclass__(cls, **options: Any) -> None:
        """Show what the constructor takes, which ``__new__`` hides from Sphinx and others."""
        super().__init_subclass__(**options)
        own = inspect.signature(cls.__init__)
        cls.__signature__ = own.replace(
            parameters=list(own.parameters.values())[1:], return_annotation=own.empty
        )

    def __new__(cls, *args: Any, **options: Any) -> Wrapper:
        """Answer those who come from `sam.py`, whose class builds the base itself."""
        found = [*args[1:2], options.get("base_optimizer")]
        for kind in found:
            if isinstance(kind, type) and issubclass(kind, Optimizer):
                raise TypeError(
                    f"{cls.__name__} stands around an optimizer that is built already: write "
                    f"{cls.__name__}({kind.__name__}(model.named_parameters(), lr=...), rho=...), "
                    "with what the base takes inside its own brackets."
                )
        return super().__new__(cls)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The base optimizer's groups."""
        if are_unscaled_now():
            self._visit.watch_unscaled(parameters(self.base.param_groups))
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.base.param_groups = groups

    @property
    def state(self) -> Any:
        """The base optimizer's state."""
        return self.base.state

    @state.setter
    def state(self, state: Any) -> None:
        self.base.state = state

    @property
    def defaults(self) -> dict[str, Any]:
        """The base optimizer's defaults."""
        return self.base.defaults

    @defaults.setter
    def defaults(self, defaults: dict[str, Any]) -> None:
        self.base.defaults = defaults

    def __getattr__(self, name: str) -> Any:
        # Private names stay the base's own: frameworks read and set them on what they are given.
        if name in _HOOKS or not name.startswith("_"):
            for optimizer in _layers(self.__dict__.get("base")):
                try:
                    return getattr(optimizer, name)
                except AttributeError:
                    continue
        base = type(self.__dict__.get("base")).__name__
        if name in _ELSEWHERE:
            raise AttributeError(f"{type(self).__name__} has no {name}, {_ELSEWHERE[name]}.")
        raise AttributeError(f"neither {type(self).__name__} nor {base} has {name!r}.")

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse what would be looked at by nobody."""
        if name in _ELSEWHERE:
            raise AttributeError(f"{type(self).__name__} has no {name}, {_ELSEWHERE[name]}.")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        own = f"{type(self).__name__} ("
        around = f"{type(self).__name__} around {type(self.base).__name__} ("
        return super().__repr__().replace(own, around, 1)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base optimizer.

        Args:
            param_group: As in torch; ``sam_rho`` and the like are filled in where missing.
        """
        self.base.add_param_group(param_group)
        try:
            self._complete_groups()
        except Exception:
            del self.param_groups[-1]
            raise

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's state, which is all there is.

        Returns:
            A dictionary that the base optimizer can load too.

        Raises:
            RuntimeError: If called inside ``perturbed()``.
        """
        self._refuse_inside("state_dict()")
        self._complete_groups()  # a schedule may have set radii that are numbers of numpy
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a wrapper or of a bare base optimizer.

        Args:
            state_dict: What ``state_dict`` of either gave. Where it says nothing about rho and the
                like, each group keeps its own.

        Raises:
            RuntimeError: If called inside ``perturbed()``.
            ValueError: If a `sam.py` has saved it, whose checkpoints lack the base's state.
        """
        self._refuse_inside("load_state_dict()")
        refuse_foreign(state_dict, self._known())
        own = [{key: group[key] for key in self._group_defaults} for group in self.param_groups]
        self.base.load_state_dict(state_dict)
        for group, settings in zip(self.param_groups, own, strict=True):
            group.update({**settings, **group})
        self._complete_groups()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what hangs on this instance: of schedulers, and on its parameters."""
        self._refuse_inside("deepcopy or pickle")
        dropped = {"step", "_opt_called"}
        own = {key: value for key, value in self.__dict__.items() if key not in dropped}
        return {**own, "_visit": self._visit.settled()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._adopt(self.base)

    def _adopt(self, base: Optimizer) -> None:
        self.base = base

    def _complete_groups(self) -> None:
        """Fill in each group's own settings; what cannot be right is refused before it is used."""
        _sharded.refuse_flat(parameters(self.param_groups))
        complete(self.base, self._group_defaults, self._known())

    def _settle(self) -> None:
        """Complete the groups again where somebody has changed them behind our back.

        As ``add_param_group`` and ``load_state_dict`` of the base do.
        """
        if not are_complete(self.param_groups, self._group_defaults):
            self._complete_groups()

    def _known(self) -> set[str]:
        """The settings of the base, and of what it stands around."""
        return {key for each in _layers(self.base) for key in getattr(each, "defaults", ())}

    def _refuse_inside(self, method: str) -> None:
        if self._visit.open:
            raise RuntimeError(
                f"{method} was called inside perturbed(), where the weights are not the model's "
                "own; leave the block first."
            )


def _layers(optimizer: Any) -> Iterator[Any]:
    """An optimizer and those that it is wrapped around: they may keep hooks for it."""
    seen: list[Any] = []
    while isinstance(optimizer, Optimizer) and not any(optimizer is other for other in seen):
        seen.append(optimizer)
        yield optimizer
        optimizer = vars(optimizer).get("optimizer")

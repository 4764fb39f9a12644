"""A torch optimizer that shows another one's groups, state and hooks as its own."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

# The base owns its hooks; the wrapper shows the same dictionaries, so that each fires once.
_HOOKS = (
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)


class Wrapper(Optimizer):
    """The part of a wrapper that only points to its base.

    The base owns groups, state, defaults and hooks. They are read through properties rather than
    copied, since ``load_state_dict`` of the base, called by whomever, replaces them.
    """

    base: Optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The base optimizer's groups."""
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

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what schedulers and hooks have hung on this instance."""
        dropped = {"step", "_opt_called", *_HOOKS}
        return {key: value for key, value in self.__dict__.items() if key not in dropped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._adopt(self.base)

    def _adopt(self, base: Optimizer) -> None:
        self.base = base
        for hooks in _HOOKS:
            setattr(self, hooks, getattr(base, hooks))

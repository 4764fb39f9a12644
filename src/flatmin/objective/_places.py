"""Where a model keeps tensors: in attributes, containers and objects; and back as they were."""

from __future__ import annotations

import operator
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

_CONTAINERS = frozenset({dict, OrderedDict, defaultdict, list, deque})
_NO_OBJECTS = (Tensor, type, types.FunctionType, types.ModuleType)
_REGISTRIES = ("_modules", "_buffers", "_parameters")
_NOTHING: dict[Any, Any] = {}

Place = tuple[Any, Any, Any]
"""What may hold tensors (a module, an object or a container), its attributes or the container
itself, and a shallow copy of these from before."""

Holder = tuple[Any, Any, Any]
"""What was found, in which holder, and under which key."""


def places_of(root: nn.Module, found: dict[int, Holder]) -> Iterator[Place]:
    """Everything that holds tensors for a module and those below it, each once.

    Args:
        root: The module.
        found: What was found before, by identity; what is found now is added.
    """
    waiting: list[Holder] = [(root, None, None)]
    objects: list[Holder] = []
    while waiting or objects:
        # Objects come last: their containers are theirs, and what else they know is not looked at,
        # for that may be half the program.
        in_object = not waiting
        here = waiting.pop() if waiting else objects.pop()
        holder = here[0]
        if id(holder) in found:
            continue
        found[id(holder)] = here
        sort = _SORTS[type(holder)]
        container = holder if sort in ("container", "tuple") else holder.__dict__
        if sort != "tuple":
            yield holder, container, container.copy()
        for key, value in entries(container):
            sort = _SORTS[type(value)]
            if not sort:
                continue
            if sort == "container" and not value:  # as most are: dictionaries of hooks
                if id(value) not in found:
                    found[id(value)] = value, holder, key
                    yield value, value, _NOTHING
            elif sort in ("container", "tuple"):
                (objects if in_object else waiting).append((value, holder, key))
            elif not in_object:
                (waiting if sort == "module" else objects).append((value, holder, key))


class _Sorts(dict[type, str]):
    """How instances of a type hold other things; empty if they hold none."""

    def __missing__(self, kind: type) -> str:
        bases: dict[str, Any] = {"tuple": tuple, "module": nn.Module, "": _NO_OBJECTS}
        found = "object" if kind.__dictoffset__ else ""
        found = next((sort for sort, base in bases.items() if issubclass(kind, base)), found)
        self[kind] = "container" if kind in _CONTAINERS else found
        return self[kind]


_SORTS = _Sorts()  # a walk asks a thousand times


def entries(container: Any) -> Iterable[tuple[Any, Any]]:
    """Keys or places in a row, and what is there."""
    return container.items() if isinstance(container, dict) else enumerate(container)


def name_of(holder: Any, key: Any, found: dict[int, Holder]) -> str:
    """What one would write for an entry, as in ``layers[0].made['cpu']``."""
    _, above, at = found[id(holder)]
    if isinstance(above, nn.Module) and at in _REGISTRIES:
        holder = above
        _, above, at = found[id(holder)]
    path = "" if above is None else name_of(above, at, found)
    if _SORTS[type(holder)] in ("container", "tuple"):
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else str(key)


def put_back(places: Sequence[Place]) -> None:
    """Whatever was or is a tensor; other attributes, such as counts of calls, are the model's."""
    for _, container, before in places:
        if before is _NOTHING and not container:
            continue
        if isinstance(container, dict):
            _put_back_entries(container, before)
        elif _differs(container, before) and (holds(before) or holds(container)):
            if isinstance(container, deque):
                container.clear()
                container.extend(before)
            else:
                container[:] = before


def _put_back_entries(container: dict[Any, Any], before: dict[Any, Any]) -> None:
    if not _differs(container.values(), before.values()):
        return
    for key in [k for k, v in container.items() if k not in before and holds(v)]:
        del container[key]
    for key, value in before.items():
        now = container.get(key)
        if now is not value and (holds(value) or holds(now)):
            container[key] = value


def _differs(now: Collection[Any], before: Collection[Any]) -> bool:
    return len(now) != len(before) or not all(map(operator.is_, now, before))


def holds(value: Any) -> bool:
    """Whether there is a tensor in it, or a reference such as recurrent layers keep to weights."""
    waiting, seen = [value], set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, Tensor | weakref.ref):
            return True
        # A container may hold itself.
        if (isinstance(part, tuple) or type(part) in _CONTAINERS) and id(part) not in seen:
            seen.add(id(part))
            waiting += part.values() if isinstance(part, dict) else part
    return False

"""Every public name is documented, and the frozen signatures hold."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import flatmin

PUBLIC = (
    "", "sharpness", "symmetry", "data", "models", "train", "ensemble", "optim", "compare",
    "analysis",
)  # fmt: skip

# Modules whose names stand for a formula or a construction of the literature: they name a source.
# Plain records among them (dataclasses outside of ball.py and scale.py) need none, nor does what is
# not listed.
SOURCED = ("optim", "sharpness", "symmetry", "ball", "scale", "models", "data.figure8")

# What callers may rely on. A parameter may gain a default, and optional keyword-only parameters
# may be added; nothing else changes without a decision.
FROZEN = {
    "flatmin.SAM": "(base, rho=0.05, *, p=2.0, model=None, fused=False)",
    "flatmin.ASAM": "(base, rho=0.5, eta=0.01, *, biases=False, p=2.0, model=None, fused=False)",
    "flatmin.GSAM": (
        "(base, rho=0.05, *, alpha=0.4, scale=Identity(), p=2.0, model=None, fused=False, "
        "when=None)"
    ),
    "flatmin.FriendlySAM": (
        "(base, rho=0.05, *, decay=0.9, scale=Identity(), p=2.0, model=None, fused=False, "
        "when=None)"
    ),
    "flatmin.WSAM": (
        "(base, rho=0.05, *, gamma=0.9, decoupled=True, scale=Identity(), p=2.0, model=None, "
        "fused=False, when=None)"
    ),
    "flatmin.SSAM": (
        "(base, rho=0.05, *, scale=Identity(), p=2.0, model=None, fused=False, when=None)"
    ),
    "flatmin.MSAM": (
        "(base, rho=0.3, *, scale=Identity(), p=2.0, model=None, fused=False, when=None)"
    ),
    "flatmin.AsyncSAM": (
        "(base, rho=0.05, *, scale=Identity(), p=2.0, model=None, fused=False, when=None)"
    ),
    "flatmin.Every": "(k)",
    "flatmin.LastPart": "(fraction, of, ramp=0)",
    "flatmin.WithProbability": "(q, seed=0)",
    "flatmin.WhenLarge": "(of, last=-1.0, first=1.0, decay=0.9)",
    "flatmin.FollowingLR": "(low, high, peak, floor=0.0)",
    "flatmin.Ball": "(rho, p=2.0, scale=Identity())",
    "flatmin.Identity": "()",
    "flatmin.Elementwise": "(eta=0.0, biases=True)",
    "flatmin.EmpiricalLoss": "(model, loss_function, batches)",
    "flatmin.sharpness.one_step_sharpness": "(objective, params, ball)",
    "flatmin.sharpness.rounding_rise": "(objective, params, *, bits=4)",
    "flatmin.sharpness.AdamScale": "(optimizer, model)",
    "flatmin.FiniteDifferences": "(objective, step=None)",
    "flatmin.GaussNewton": "(loss)",
    "flatmin.ShardedLoss": "(model, loss_function, batches)",
    "flatmin.analysis.look": "(model, data)",
    "flatmin.sharpness.critical_sharpness": (
        "(objective, params, *, scale, update=None, start=None, tolerance=0.0625)"
    ),
}
# Held as soon as they exist.
PLANNED = {
    "flatmin.sharpness.worst_case_sharpness": "(objective, params, ball, *, steps=20)",
    "flatmin.sharpness.average_sharpness": (
        "(objective, params, ball, *, samples=100, generator=None)"
    ),
    "flatmin.sharpness.gradient_norm": "(objective, params, *, scale)",
    "flatmin.sharpness.hessian_trace": "(objective, params, *, scale, samples, generator=None)",
    "flatmin.sharpness.top_eigenvalues": "(objective, params, *, scale, k=1)",
}


def public_modules() -> list[ModuleType]:
    """Import the façade and the public packages that exist."""
    folder = Path(flatmin.__file__).parent
    return [
        importlib.import_module(f"flatmin.{name}" if name else "flatmin")
        for name in PUBLIC
        if (folder / name / "__init__.py").exists()
    ]


def public_objects() -> dict[str, Any]:
    """Name every public class and function once, by the place where it is defined."""
    found = {}
    for module in public_modules():
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                found[f"{thing.__module__}.{thing.__qualname__}"] = thing
    return found


def complaints(thing: Any, home: str) -> list[str]:
    """Say what a public docstring lacks; `home` is the defining module, relative to flatmin."""
    text = inspect.cleandoc(thing.__doc__ or "")
    # A dataclass without a docstring gets one made from its signature.
    if not text or text.startswith(f"{thing.__name__}("):
        return ["a docstring"]
    lacks = []
    sections = {line.strip() for line in text.splitlines()}
    examples = doctest.DocTestParser().get_examples(text)
    if not getattr(thing, "_is_protocol", False) and not issubclass_of(thing, BaseException):
        if "Example:" not in sections or not examples:
            lacks.append("an `Example:` with a doctest")
        if any(example.options.get(doctest.SKIP) for example in examples):
            lacks.append("an example that is not skipped")
    needs = any(home == module or home.startswith(module + ".") for module in SOURCED)
    if dataclasses.is_dataclass(thing) and home not in ("ball", "scale"):
        needs = False
    if needs and not getattr(thing, "_is_protocol", False) and "Source:" not in sections:
        lacks.append("a `Source:`")
    return lacks


def issubclass_of(thing: Any, kind: type) -> bool:
    """Whether a public object is a class of a kind."""
    return inspect.isclass(thing) and issubclass(thing, kind)


OBJECTS = public_objects()


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_module_names_what_is_public(module: ModuleType) -> None:
    assert module.__doc__
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
    assert not [name for name in module.__all__ if name.startswith("_") and name != "__version__"]


@pytest.mark.parametrize("name", OBJECTS)
def test_public_name_is_documented(name: str) -> None:
    thing = OBJECTS[name]
    lacks = complaints(thing, thing.__module__.removeprefix("flatmin."))
    assert not lacks, f"{name} lacks {', '.join(lacks)}"


def lookup(path: str) -> Any:
    """Find a public object by its public path, or None."""
    module, _, name = path.rpartition(".")
    homes = {home.__name__: home for home in public_modules()}
    home = homes.get(module)
    return getattr(home, name) if name in getattr(home, "__all__", ()) else None


def parameters(thing: Callable[..., Any]) -> dict[str, tuple[str, str | None]]:
    """Map each parameter to its kind and the text of its default; None where it has none."""
    factories = {}
    if dataclasses.is_dataclass(thing):
        factories = {
            field.name: field.default_factory
            for field in dataclasses.fields(thing)
            if field.default_factory is not dataclasses.MISSING
        }
    found = {}
    for name, parameter in inspect.signature(thing).parameters.items():
        default = None if parameter.default is parameter.empty else repr(parameter.default)
        if name in factories:
            default = repr(factories[name]())
        found[name] = (parameter.kind.name, default)
    return found


def frozen_parameters(signature: str) -> dict[str, tuple[str, str | None]]:
    """Read a frozen signature, in the form that `parameters` gives."""
    definition = ast.parse(f"def f{signature}: ...").body[0]
    assert isinstance(definition, ast.FunctionDef)
    arguments = definition.args
    padding = [None] * (len(arguments.args) - len(arguments.defaults))
    found = {}
    for argument, default in zip(arguments.args, [*padding, *arguments.defaults], strict=True):
        found[argument.arg] = ("POSITIONAL_OR_KEYWORD", default and ast.unparse(default))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found[argument.arg] = ("KEYWORD_ONLY", default and ast.unparse(default))
    return found


def breaks(thing: Callable[..., Any], signature: str) -> list[str]:
    """Say how a signature breaks its frozen form."""
    actual, frozen = parameters(thing), frozen_parameters(signature)
    found = []
    for name, (kind, default) in frozen.items():
        if name not in actual:
            found.append(f"{name} is gone")
        elif actual[name][0] != kind:
            found.append(f"{name} is {actual[name][0]}, was {kind}")
        elif default is not None and actual[name][1] != default:
            found.append(f"the default of {name} is {actual[name][1]}, was {default}")
    positional = [name for name in frozen if name in actual and frozen[name][0] != "KEYWORD_ONLY"]
    if sorted(positional, key=list(actual).index) != positional:
        found.append("the order has changed")
    for name, (kind, default) in actual.items():
        if name not in frozen and not (kind == "KEYWORD_ONLY" and default is not None):
            found.append(f"{name} is new, and no optional keyword")
    return found


@pytest.mark.parametrize("path", [*FROZEN, *(path for path in PLANNED if lookup(path))])
def test_frozen_signature_holds(path: str) -> None:
    thing = lookup(path)
    assert thing is not None, f"{path} is not public"
    assert not breaks(thing, (FROZEN | PLANNED)[path])


@pytest.mark.parametrize(
    ("function", "number"),
    [
        (lambda objective, params, *, scale: 0, 0),
        (lambda objective, params, *, scale=None, step=1: 0, 0),
        (lambda objective, params, scale: 0, 1),
        (lambda params, objective, *, scale: 0, 1),
        (lambda objective, params, *, scale, step: 0, 1),
        (lambda objective, params, extra=1, *, scale: 0, 1),
        (lambda objective, params: 0, 1),
    ],
)
def test_a_broken_signature_is_noticed(function: Callable[..., Any], number: int) -> None:
    assert len(breaks(function, "(objective, params, *, scale)")) == number


def test_a_changed_default_is_noticed() -> None:
    assert len(breaks(lambda rho=0.1: 0, "(rho=0.05)")) == 1
    assert not breaks(lambda rho=0.05: 0, "(rho=0.05)")


def documented(text: str | None) -> type:
    """Make a class with a docstring."""
    return type("Made", (), {"__doc__": text})


@pytest.mark.parametrize(
    ("text", "home", "number"),
    [
        (None, "ball", 1),
        ("A thing.", "ball", 2),
        ("A thing.", "objective", 1),
        ("A thing.\n\nExample:\n    >>> 1\n    1\n", "objective", 0),
        ("A thing.\n\nExample:\n    >>> 1\n    1\n", "optim.sam", 1),
        ("A thing.\n\nExample:\n    >>> 1\n    1\n\nSource:\n    A.", "optim.sam", 0),
        ("A thing.\n\nExample:\n    >>> f()  # doctest: +SKIP\n", "data.cifar", 1),
    ],
)
def test_a_poor_docstring_is_noticed(text: str | None, home: str, number: int) -> None:
    assert len(complaints(documented(text), home)) == number

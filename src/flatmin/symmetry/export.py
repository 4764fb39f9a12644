"""A network exported by torch: its operations in order, written as ones that are known."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from flatmin.symmetry.evaluate import same_randomness, tensors_in
from flatmin.symmetry.private import private_copy

# What of a tensor these operations read is not its numbers.
SHAPE_ONLY = {
    *("zeros_like", "ones_like", "full_like", "empty_like", "sym_size", "sym_numel"),
    *("new_zeros", "new_ones", "new_full", "new_empty", "_assert_tensor_metadata"),
}


class Flat(nn.Module):
    """A network whose outputs are a list, whatever they are wrapped in."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Return every tensor of the output."""
        return list(tensors_in(self.model(*args, **kwargs)))


def check(twin: nn.Module, model: nn.Module, args: Any, kwargs: Any) -> None:
    """Raise ValueError if a network does not run on an example."""
    try:
        with same_randomness(model):
            private_copy(twin)(*args, **kwargs)
    except Exception as error:
        shapes = [tuple(getattr(x, "shape", ())) for x in tree_leaves((args, kwargs))]
        raise ValueError(
            f"{type(model).__name__} does not run on the example, of shapes {shapes}: "
            f"{_first_line(error)}"
        ) from error


def exported(twin: Flat, args: Any, kwargs: Any, keeps: frozenset[str]) -> Any:
    """Export a network, and write what has no name in ``keeps`` as what has one."""
    from torch.export import default_decompositions, export

    try:
        program = export(twin, tuple(args), dict(kwargs), strict=False)
        if any(_is_composite(node, keeps) for node in program.graph.nodes):
            table = default_decompositions()
            for operation in [each for each in table if operation_name(each) in keeps]:
                del table[operation]
            program = program.run_decompositions(table)
    except Exception as error:
        raise ValueError(
            f"torch.export cannot trace {type(twin.model).__name__}{_place(error)}: "
            f"{_first_line(error)}. Name the submodule that branches on its data, or that leaves "
            "torch, in opaque=[...]; nothing that enters it will be offered"
        ) from error
    return program


def _is_composite(node: fx.Node, keeps: frozenset[str]) -> bool:
    # What writes in place is written anew as well: a trace of values knows no places.
    schema = getattr(node.target, "_schema", None)
    return schema is not None and (schema.is_mutable or schema.name.split("::")[1] not in keeps)


def operation_name(operation: Any) -> str:
    """Return the name of an operation without its namespace and overload."""
    schema = getattr(operation, "_schema", None)
    name = getattr(operation, "__name__", "") if schema is None else schema.name
    return str(name).rpartition("::")[2]


@contextmanager
def quiet() -> Iterator[None]:
    """Say nothing of what torch warns and logs about while it exports somebody's forward."""
    logger = logging.getLogger("torch")
    before = logger.level
    aside = io.StringIO()  # a graph that could not be finished is printed
    with warnings.catch_warnings(), redirect_stdout(aside), redirect_stderr(aside):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(before)


def _first_line(error: BaseException) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), repr(error)).partition(". ")[0].rstrip(".")


def _place(error: BaseException) -> str:
    """Say which line of whose forward could not be exported."""
    entry, place = error.__traceback__, ""
    while entry is not None:
        code = entry.tb_frame.f_code
        if "self" in entry.tb_frame.f_locals and code.co_name == "forward":
            module = entry.tb_frame.f_locals["self"]
            if isinstance(module, nn.Module) and not type(module).__module__.startswith("torch."):
                place = f" (line {entry.tb_lineno}, in {type(module).__qualname__}.forward)"
        entry = entry.tb_next
    return place

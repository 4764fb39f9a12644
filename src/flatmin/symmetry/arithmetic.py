"""What sums and products of tensors do to units: tie them, or pass them on."""

from torch import fx, nn

from flatmin.symmetry.layers import argument, unknown
from flatmin.symmetry.slots import Slot
from flatmin.symmetry.walk import Walk, Wire


def addition(walk: Walk, node: fx.Node) -> Wire | None:
    """Sums and differences tie what they join; a bias moves with the units it is added to."""
    operands = _operands(node)
    wires = [walk.wire(operand) for operand in operands]
    outputs = [_broadcast(walk, node, *pair) for pair in zip(operands, wires, strict=True)]
    if all(wires):
        return _tied(walk, node, *outputs)
    which = 0 if wires[0] is not None else 1
    out, other = outputs[which], operands[1 - which]
    if out is None:
        return unknown(walk, node)
    if walk.kind == "permute" and _same_for_all_units(walk, node, other, out):
        return out
    return _moving(walk, node, other, out)


def product(walk: Walk, node: fx.Node) -> Wire | None:
    """Products with a constant, or with a gate whose own units are stopped, pass units on."""
    operands = _operands(node)
    wires = [walk.wire(operand) for operand in operands]
    outputs = [_broadcast(walk, node, *pair) for pair in zip(operands, wires, strict=True)]
    if all(wires) and walk.kind == "permute":
        return _tied(walk, node, *outputs)
    if not {"input", "other"}.issuperset(node.kwargs):  # div with rounding
        return unknown(walk, node)
    moving = [i for i, wire in enumerate(wires) if wire is not None and not walk.is_stopped(wire)]
    if len(moving) != 1:
        return unknown(walk, node) if moving else None
    which = moving[0]
    out, other = outputs[which], operands[1 - which]
    inverse = which == 1 and "div" in _name(node)
    overwrites = which == 1 and _name(node).endswith("_")
    if out is None or inverse or overwrites:
        return unknown(walk, node)
    if walk.kind != "permute" or _same_for_all_units(walk, node, other, out):
        return out
    return _moving(walk, node, other, out)


def _operands(node: fx.Node) -> list[object]:
    return [argument(node, 0, "input"), argument(node, 1, "other")]


def _name(node: fx.Node) -> str:
    return str(getattr(node.target, "__name__", node.target))


def _broadcast(walk: Walk, node: fx.Node, operand: object, wire: Wire | None) -> Wire | None:
    # Shapes align at their ends; a single unit that meets many is no longer one unit.
    if wire is None:
        return None
    shape = walk.shape(node)
    dim = wire.dim + len(shape) - len(walk.shape(operand))
    return Wire(wire.units, dim, wire.block) if shape[dim] == walk.width(wire) else None


def _tied(walk: Walk, node: fx.Node, a: Wire | None, b: Wire | None) -> Wire | None:
    if a is None or b is None or a.dim != b.dim:
        return unknown(walk, node)
    walk.join(node, a, b)
    return a


def _moving(walk: Walk, node: fx.Node, operand: object, out: Wire) -> Wire | None:
    # A parameter with one entry per unit moves with the units.
    tensor = walk.tensor(operand)
    if not isinstance(tensor, nn.Parameter) or _extent(walk, node, operand, out) != walk.width(out):
        return unknown(walk, node)
    axis = out.dim - len(walk.shape(node)) + tensor.ndim
    walk.attach(out, node, tensor, Slot("", axis, 1, out.block))
    return out


def _extent(walk: Walk, node: fx.Node, operand: object, wire: Wire) -> int:
    shape = walk.shape(operand)
    axis = wire.dim - len(walk.shape(node)) + len(shape)
    return shape[axis] if axis >= 0 else 1


def _same_for_all_units(walk: Walk, node: fx.Node, operand: object, wire: Wire) -> bool:
    return _extent(walk, node, operand, wire) == 1

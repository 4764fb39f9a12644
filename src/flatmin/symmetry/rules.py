"""The table of rules: one entry for each kind of layer, function or method."""

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from flatmin.symmetry.arithmetic import addition, product
from flatmin.symmetry.axes import metadata, padding, permute_axes, reduction, reshape, transpose
from flatmin.symmetry.elementwise import commutes, dropout, prelu, symmetric_clip
from flatmin.symmetry.groups import OUTPUTS
from flatmin.symmetry.layers import (
    batch_norm,
    convolution,
    embedding,
    linear,
    matmul,
    normalization,
    unknown,
)
from flatmin.symmetry.walk import Rule, Walk, Wire

_homogeneous = commutes("scale", "permute")
_odd = commutes("permute", "flip")
_elementwise = commutes("permute")
_proportional = commutes("scale", "permute", "flip")
_max_pool = [commutes("scale", "permute", spatial=n) for n in (1, 2, 3)]
_linear_pool = [commutes("scale", "permute", "flip", spatial=n) for n in (1, 2, 3)]

# Keys are layer types, functions, and names of tensor methods.
_TABLE: list[tuple[Rule, list[Any]]] = [
    (linear, [nn.Linear, F.linear]),
    (matmul, [torch.matmul, operator.matmul, torch.mm, "matmul", "mm"]),
    (convolution(1), [nn.Conv1d, F.conv1d]),
    (convolution(2), [nn.Conv2d, F.conv2d]),
    (convolution(3), [nn.Conv3d, F.conv3d]),
    (convolution(1, transposed=True), [nn.ConvTranspose1d, F.conv_transpose1d]),
    (convolution(2, transposed=True), [nn.ConvTranspose2d, F.conv_transpose2d]),
    (convolution(3, transposed=True), [nn.ConvTranspose3d, F.conv_transpose3d]),
    (embedding, [nn.Embedding]),
    (batch_norm, [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm]),
    (normalization, [nn.LayerNorm, nn.RMSNorm, nn.GroupNorm]),
    (_homogeneous, [nn.ReLU, F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_"]),
    (_homogeneous, [nn.LeakyReLU, F.leaky_relu, F.leaky_relu_, torch.abs, abs, "abs"]),
    (prelu, [nn.PReLU, F.prelu, torch.prelu]),
    (_odd, [nn.Tanh, F.tanh, torch.tanh, torch.tanh_, "tanh", "tanh_", torch.sin, "sin"]),
    (_odd, [nn.Tanhshrink, F.tanhshrink, nn.Softsign, F.softsign, torch.erf, "erf"]),
    (_odd, [nn.Hardshrink, F.hardshrink, nn.Softshrink, F.softshrink]),
    (symmetric_clip, [nn.Hardtanh, F.hardtanh]),
    (_elementwise, [nn.GELU, F.gelu, nn.SiLU, F.silu, nn.Mish, F.mish, nn.ELU, F.elu]),
    (_elementwise, [nn.SELU, F.selu, nn.CELU, F.celu, nn.ReLU6, F.relu6, torch.exp, "exp"]),
    (_elementwise, [nn.Hardswish, F.hardswish, nn.Hardsigmoid, F.hardsigmoid, nn.Sigmoid]),
    (_elementwise, [F.sigmoid, torch.sigmoid, "sigmoid", nn.Softplus, F.softplus]),
    (_elementwise, [nn.LogSigmoid, F.logsigmoid, torch.square, "square", torch.clamp, "clamp"]),
    # A softmax treats all entries of its axis alike.
    (_elementwise, [nn.Softmax, F.softmax, torch.softmax, "softmax"]),
    (_elementwise, [nn.LogSoftmax, F.log_softmax, torch.log_softmax, "log_softmax"]),
    (_proportional, [nn.Identity, operator.neg, torch.neg, "neg", torch.clone, "clone"]),
    (_proportional, ["contiguous", "detach", "float", "double"]),
    (dropout, [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d]),
    (dropout, [F.dropout, F.dropout1d, F.dropout2d, F.dropout3d]),
    (_max_pool[0], [nn.MaxPool1d, F.max_pool1d, torch.max_pool1d]),
    (_max_pool[1], [nn.MaxPool2d, F.max_pool2d, torch.max_pool2d]),
    (_max_pool[2], [nn.MaxPool3d, F.max_pool3d, torch.max_pool3d]),
    (_max_pool[0], [nn.AdaptiveMaxPool1d, F.adaptive_max_pool1d]),
    (_max_pool[1], [nn.AdaptiveMaxPool2d, F.adaptive_max_pool2d]),
    (_max_pool[2], [nn.AdaptiveMaxPool3d, F.adaptive_max_pool3d]),
    (_linear_pool[0], [nn.AvgPool1d, F.avg_pool1d, nn.AdaptiveAvgPool1d, F.adaptive_avg_pool1d]),
    (_linear_pool[1], [nn.AvgPool2d, F.avg_pool2d, nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d]),
    (_linear_pool[2], [nn.AvgPool3d, F.avg_pool3d, nn.AdaptiveAvgPool3d, F.adaptive_avg_pool3d]),
    (_linear_pool[0], [nn.ZeroPad1d, nn.ReflectionPad1d, nn.ReplicationPad1d]),
    (_linear_pool[1], [nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d]),
    (_linear_pool[1], [nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d]),
    (padding, [F.pad]),
    (reduction("scale", "permute", "flip"), [torch.mean, "mean", torch.sum, "sum"]),
    (reduction("scale", "permute"), [torch.amax, "amax", torch.amin, "amin"]),
    (reshape, [nn.Flatten, torch.flatten, "flatten", nn.Unflatten, "unflatten"]),
    (reshape, [torch.reshape, "reshape", "view"]),
    (reshape, [torch.squeeze, "squeeze", torch.unsqueeze, "unsqueeze"]),
    (transpose, [torch.transpose, "transpose"]),
    (permute_axes, [torch.permute, "permute"]),
    (addition, [operator.add, operator.iadd, torch.add, "add", "add_"]),
    (addition, [operator.sub, operator.isub, torch.sub, "sub", "sub_"]),
    (product, [operator.mul, torch.mul, "mul", "mul_"]),
    (product, [operator.truediv, torch.div, "div", "div_"]),
    (metadata, [getattr, "size", "dim", "numel"]),
]

RULES: dict[Any, Rule] = {key: rule for rule, keys in _TABLE for key in keys}


def rule_of(node: fx.Node, module: nn.Module | None) -> Rule:
    """Return the rule of a node; a layer that was altered from outside has none."""
    if node.op in ("placeholder", "get_attr"):
        return _nothing
    if node.op == "output":
        return _stops(OUTPUTS)
    if "out" in node.kwargs:
        return unknown
    if module is None:
        return RULES.get(node.target, unknown)
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return _stops("has forward hooks or a replaced forward, which may change anything")
    return RULES.get(type(module), unknown)


def _nothing(walk: Walk, node: fx.Node) -> Wire | None:
    return None


def _stops(reason: str) -> Rule:
    def rule(walk: Walk, node: fx.Node) -> Wire | None:
        for source in node.all_input_nodes:
            wire = walk.wire(source)
            if wire is not None:
                walk.stop(wire, node, reason)
        return None

    return rule

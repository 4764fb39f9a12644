"""The table of rules: one entry for each operation of torch, under its name in ATen.

What has an entry is not decomposed; everything else is written by torch in terms of what has one.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from flatmin.symmetry.export import SHAPE_ONLY
from flatmin.symmetry.laws import (
    Attention,
    BatchNorm,
    Bilinear,
    Compare,
    Convolution,
    Dropout,
    Entry,
    Join,
    Law,
    Linear,
    Lookup,
    Matmul,
    Move,
    Normalize,
    Pick,
    Pointwise,
    Pool,
    Product,
    Reduce,
    Slopes,
    Softmax,
)


def _power(given: Mapping[str, Any]) -> Pointwise:
    exponent = given["exponent"]
    if not isinstance(exponent, int | float):
        return Pointwise()
    whole = exponent == int(exponent)
    return Pointwise(Fraction(exponent), int(exponent) % 2 if whole else None)


def _clip(given: Mapping[str, Any]) -> Pointwise:
    low, high = given.get("min", given.get("min_val")), given.get("max", given.get("max_val"))
    homogeneous = {low, high} <= {0, None}
    odd = isinstance(low, int | float) and isinstance(high, int | float) and low == -high
    return Pointwise(1 if homogeneous else None, 1 if odd else None)


def _filled(given: Mapping[str, Any]) -> Join:
    return Join(("self", "value"), choice="mask")


def _extreme(given: Mapping[str, Any]) -> Law:
    return Join(odd=False) if "other" in given else Reduce(flip=None)


_HOMOGENEOUS = Pointwise(1)
_ODD = Pointwise(None, 1)
_SAME = Pointwise(1, 1)
_OTHER = Pointwise()

_LAWS: list[tuple[Entry, str]] = [
    # Where entries go
    (Move(), "view reshape _unsafe_view _reshape_alias flatten unflatten permute transpose t"),
    (
        Move(),
        "squeeze unsqueeze expand expand_as repeat repeat_interleave movedim swapaxes numpy_T",
    ),
    (Move(), "slice select narrow split split_with_sizes chunk unbind unsafe_split unsafe_chunk"),
    (Move(), "flip roll rot90 tile diagonal unfold im2col pixel_shuffle pixel_unshuffle"),
    (Move(), "channel_shuffle constant_pad_nd tril triu as_strided_copy mT adjoint view_as"),
    (Move(), "reflection_pad1d reflection_pad2d reflection_pad3d"),
    (Move(), "replication_pad1d replication_pad2d replication_pad3d"),
    (Move(("tensors",)), "cat stack hstack vstack concat"),
    (Move(("self", "src")), "slice_scatter select_scatter diagonal_scatter copy"),
    (Pick(), "index index_select gather take_along_dim _unsafe_index"),
    (Lookup(), "embedding"),
    # Functions of one entry
    (_SAME, "clone contiguous alias detach lift_fresh_copy lift_fresh to _to_copy neg identity"),
    (_SAME, "type_as view_of real positive resolve_conj resolve_neg"),
    (_HOMOGENEOUS, "relu leaky_relu rrelu rrelu_with_noise"),
    (Pointwise(1, 0), "abs"),
    (Pointwise(0, 1), "sign sgn"),
    (Pointwise(2, 0), "square"),
    (Pointwise(Fraction(1, 2)), "sqrt"),
    (Pointwise(Fraction(-1, 2)), "rsqrt"),
    (Pointwise(-1, 1), "reciprocal"),
    (_power, "pow float_power"),
    (_clip, "clamp clamp_min clamp_max clip hardtanh"),
    (_ODD, "tanh sin erf asinh atan sinh tan hardshrink softshrink round trunc erfinv"),
    (Pointwise(None, 0), "cos cosh"),
    (_OTHER, "gelu silu elu selu celu relu6 exp exp2 expm1 log log2 log10 log1p mish sigmoid"),
    (_OTHER, "hardswish hardsigmoid softplus log_sigmoid_forward threshold floor ceil logit"),
    (_OTHER, "logical_not bitwise_not isnan isinf isfinite erfc acos asin"),
    (Softmax(), "softmax log_softmax _softmax _log_softmax _safe_softmax"),
    (Dropout(), "dropout native_dropout feature_dropout"),
    (Slopes(), "prelu _prelu_kernel"),
    # Functions of two
    (Join(), "add sub rsub"),
    (Join(odd=False), "maximum minimum fmax fmin hypot"),
    (Join(("self", "other"), choice="condition"), "where"),
    (_filled, "masked_fill"),
    (Compare(), "gt ge lt le eq ne"),
    (Product(), "mul multiply"),
    (Product(inverse=True), "div true_divide divide"),
    # Many entries to one
    (Reduce(), "mean sum nansum"),
    (Reduce(along=True, alike=False), "cumsum"),
    (Reduce(flip=None), "amax amin"),
    (_extreme, "max min"),
    (Reduce(flip=None, along=True, alike=False), "cummax cummin sort topk"),
    (Reduce(flip=None, alike=False), "median kthvalue"),
    (Reduce(scale=0, flip=None, alike=False), "argmax argmin"),
    (Reduce(scale=2, flip=0), "var"),
    (Reduce(scale=1, flip=0), "std norm linalg_vector_norm"),
    # Neighbors
    *[
        (Pool(n, odd=True), f"avg_pool{n}d adaptive_avg_pool{n}d _adaptive_avg_pool{n}d")
        for n in (1, 2, 3)
    ],
    *[
        (
            Pool(n, odd=False),
            f"max_pool{n}d max_pool{n}d_with_indices adaptive_max_pool{n}d",
        )
        for n in (1, 2, 3)
    ],
    *[
        (Pool(n, odd=True), f"upsample_nearest{n}d _upsample_nearest_exact{n}d upsample_{kind}{n}d")
        for n, kind in ((1, "linear"), (2, "bilinear"), (3, "trilinear"))
    ],
    (Pool(2, odd=True), "upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa"),
    # Matrices
    (Linear(), "linear"),
    (Bilinear(), "bilinear"),
    (Matmul(), "mm bmm"),
    (Matmul(("self", "other")), "matmul"),
    (Matmul(("self", "vec")), "mv"),
    (Matmul(("mat1", "mat2"), "self"), "addmm"),
    (Matmul(("batch1", "batch2"), "self"), "baddbmm"),
    (Convolution(False), "conv1d conv2d conv3d"),
    (Convolution(True), "conv_transpose1d conv_transpose2d conv_transpose3d"),
    (Convolution(None), "convolution"),
    (Attention(), "scaled_dot_product_attention"),
    # Statistics
    (BatchNorm(), "batch_norm _native_batch_norm_legit_no_training"),
    (BatchNorm(), "_native_batch_norm_legit_functional _native_batch_norm_legit native_batch_norm"),
    (Normalize(), "layer_norm native_layer_norm"),
    (Normalize(centered=False), "rms_norm _fused_rms_norm"),
    (Normalize(channels=True), "group_norm native_group_norm"),
]

LAWS: dict[str, Entry] = {name: law for law, names in _LAWS for name in names.split()}
# Operations that may be left as they are when a network is exported.
KEPT = frozenset(LAWS) | SHAPE_ONLY | {"opaque"}

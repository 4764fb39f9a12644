"""What one file of CIFAR holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images uint8 [n, 3, 32, 32], labels int64 [n], and whether any image went through JPEG."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    lossy: bool = False


def as_labels(labels: Sequence[int], name: str) -> NDArray[np.int64]:
    """Labels of a file as int64; integers of Python and of parquet may be larger."""
    for label in labels:
        if not -(2**63) <= label < 2**63:
            shown = f"{label}" if abs(label) < 2**64 else f"of {label.bit_length()} bits"
            raise ValueError(
                f"{name} holds the label {shown}, expected one of a class: it is damaged or "
                "foreign; get it again."
            )
    return np.array(labels, dtype=np.int64)

"""What one file of CIFAR holds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images uint8 [n, 3, 32, 32], labels int64 [n], and whether any image went through JPEG."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    lossy: bool = False

"""What may be done to a network without changing its function, and measures tested against it."""

from flatmin.symmetry.canonical import Balance, balance, canonicalize
from flatmin.symmetry.certify import Certificate, certify
from flatmin.symmetry.evaluate import Verification, verify
from flatmin.symmetry.find import find_flips, find_permutations, find_scalings
from flatmin.symmetry.groups import Group, Stop
from flatmin.symmetry.slots import Slot
from flatmin.symmetry.symmetries import Flips, Permutations, Scalings, Symmetries
from flatmin.symmetry.transform import flip, permute, rescale

__all__ = [
    "Balance",
    "Certificate",
    "Flips",
    "Group",
    "Permutations",
    "Scalings",
    "Slot",
    "Stop",
    "Symmetries",
    "Verification",
    "balance",
    "canonicalize",
    "certify",
    "find_flips",
    "find_permutations",
    "find_scalings",
    "flip",
    "permute",
    "rescale",
    "verify",
]

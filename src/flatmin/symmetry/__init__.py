"""What may be done to a network without changing its function, and measures tested against it."""

# One representative per orbit
from flatmin.symmetry.canonical import Balance, balance, canonicalize

# A measure tested against the symmetry
from flatmin.symmetry.certificate import Certificate
from flatmin.symmetry.certify import certify

# Outputs before and after
from flatmin.symmetry.evaluate import Verification, verify

# What may be done
from flatmin.symmetry.find import find_flips, find_permutations, find_scalings
from flatmin.symmetry.groups import Group, Stop
from flatmin.symmetry.mixings import Mixing, Mixings, find_mixings
from flatmin.symmetry.symmetries import Flips, Permutations, Scalings

# Doing it, in place
from flatmin.symmetry.transform import flip, mix, permute, rescale

__all__ = [
    "Balance",
    "Certificate",
    "Flips",
    "Group",
    "Mixing",
    "Mixings",
    "Permutations",
    "Scalings",
    "Stop",
    "Verification",
    "balance",
    "canonicalize",
    "certify",
    "find_flips",
    "find_mixings",
    "find_permutations",
    "find_scalings",
    "flip",
    "mix",
    "permute",
    "rescale",
    "verify",
]

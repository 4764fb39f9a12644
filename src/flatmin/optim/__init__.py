"""Optimizers that look for flat minima, around any torch optimizer."""

from flatmin.optim._report import StepReport
from flatmin.optim.async_sam import AsyncSAM
from flatmin.optim.friendly import FriendlySAM
from flatmin.optim.gsam import GSAM
from flatmin.optim.msam import MSAM
from flatmin.optim.radius import FollowingLR
from flatmin.optim.sam import ASAM, SAM
from flatmin.optim.select import only_norms, perturb_only
from flatmin.optim.ssam import SSAM
from flatmin.optim.when import Every, LastPart, Moment, When, WithProbability
from flatmin.optim.when_large import WhenLarge
from flatmin.optim.wsam import WSAM

__all__ = [
    "ASAM",
    "GSAM",
    "MSAM",
    "SAM",
    "SSAM",
    "WSAM",
    "AsyncSAM",
    "Every",
    "FollowingLR",
    "FriendlySAM",
    "LastPart",
    "Moment",
    "StepReport",
    "When",
    "WhenLarge",
    "WithProbability",
    "only_norms",
    "perturb_only",
]

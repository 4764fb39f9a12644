"""Networks looked at: measured, compared and drawn, from Python and for ``flatmin measure``."""

# One that is trained
from flatmin.analysis.along import AlongTraining

# One network
from flatmin.analysis.look import look
from flatmin.analysis.measuring import MEASURES
from flatmin.analysis.seen import Look

# Several
from flatmin.analysis.several import SideBySide, side_by_side

# What is measured
from flatmin.analysis.subject import Subject

__all__ = ["MEASURES", "AlongTraining", "Look", "SideBySide", "Subject", "look", "side_by_side"]

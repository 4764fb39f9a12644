"""Networks looked at: measured, compared and drawn, from Python and for ``flatmin measure``."""

# One network
from flatmin.analysis.look import look
from flatmin.analysis.measuring import MEASURES
from flatmin.analysis.seen import Look

# Several
from flatmin.analysis.several import SideBySide, side_by_side

__all__ = ["MEASURES", "Look", "SideBySide", "look", "side_by_side"]

"""Figures 1 to 4 and table 2: what positive scalings do to a network's sharpness."""

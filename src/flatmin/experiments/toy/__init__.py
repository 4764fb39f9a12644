"""Figures 5 and 6: toy networks trained by the hundred, and which optimizer is best where."""

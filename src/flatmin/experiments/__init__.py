"""The report, item by item: one file each, with its claim, its computation, figure and verdict."""

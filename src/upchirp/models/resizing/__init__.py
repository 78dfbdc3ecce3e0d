"""Models of other input sizes: the change of grids, windows, positions and moments."""

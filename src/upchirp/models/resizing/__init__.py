"""What changes in a model when the side of its input changes: grids, windows, positions and moments."""

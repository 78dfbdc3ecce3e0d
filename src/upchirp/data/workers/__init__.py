"""Loader workers: what they prepare, as which chunks, and how these come to the training process."""

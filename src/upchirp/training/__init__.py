"""Training: recipes, the engine, checkpoints, evaluation and whole runs."""

from upchirp.lazy import exports

__getattr__, __dir__ = exports(__name__)

"""Training: recipes, the engine, checkpoints, evaluation and whole runs."""

from upchirp.lazy import exports

# Now, as the module of that name would hide it.
from upchirp.training.presets import recipe as recipe

__getattr__, __dir__ = exports(__name__)

"""Several curricula under one rule: the same data, seeds, recipe and budgets."""

from upchirp.lazy import exports

__getattr__, __dir__ = exports(__name__)

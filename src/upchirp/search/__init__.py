"""Search: the curriculum for one's own data and model, by the paper's algorithms."""

from upchirp.lazy import exports

__getattr__, __dir__ = exports(__name__)

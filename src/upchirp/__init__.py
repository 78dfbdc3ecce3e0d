"""Train vision backbones faster by showing them low frequencies first (EfficientTrain++)."""

from upchirp.lazy import exports

__getattr__, __dir__ = exports(__name__)

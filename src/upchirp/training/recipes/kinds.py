"""What optimizers are like, for the learning rates that suit them."""

from typing import Literal

_SGD = {"sgd", "momentum", "nesterov", "nesterovw", "sgdp", "sgdw", "sgdc", "csgdp", "csgdw", "csgdc"}


def kind_of(opt: str) -> Literal["adam", "lamb", "sgd"] | None:
    """Whose learning rates suit an optimizer of timm's; None if that is not known.

    Lion, for one, takes rates several times smaller than AdamW, and Muon larger ones.

    >>> [kind_of(opt) for opt in ("nadamw", "lambc", "nesterov", "lion", "adamuon", "adamax")]
    ['adam', 'lamb', 'sgd', None, None, None]
    """
    if opt in _SGD:
        return "sgd"
    if "lamb" in opt:
        return "lamb"
    return "adam" if "adam" in opt and "muon" not in opt and opt != "adamax" else None

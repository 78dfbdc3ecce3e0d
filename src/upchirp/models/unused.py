"""Parameters that a forward pass leaves out, which a gradient that is summed over processes must be told of."""

import torch
from torch import nn

from upchirp.models.meta import input_channels, meta_copy


def has_unused_parameters(model: nn.Module, size: int) -> bool:
    """Whether a model trains parameters that images of a side do not reach, or it cannot be told.

    The model is not touched: a copy without values is run forward, in training mode.

    >>> used = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())
    >>> has_unused_parameters(used, 8)
    False
    >>> used.another_head = nn.Linear(8, 2)
    >>> used.forward = lambda images: used[0](images)
    >>> has_unused_parameters(used, 8)
    True
    """
    twin = meta_copy(model).train()
    for module in twin.modules():
        if isinstance(module, nn.SyncBatchNorm):
            # It would wait for other processes, and on a GPU.
            module.eval()
    wanted = {id(parameter) for parameter in twin.parameters() if parameter.requires_grad}
    try:
        with torch.device("meta"):
            # Two images, as batch norm refuses to train on one value per channel.
            outputs = twin(torch.zeros(2, input_channels(twin), size, size))
        tensors = outputs if isinstance(outputs, tuple) else (outputs,)
        return not wanted <= set[int]().union(*(_reached(each.grad_fn) for each in tensors))
    except Exception:
        # Whatever a model of one's own raises here, it may still train with values.
        return True


def _reached(root: torch.autograd.graph.Node | None) -> set[int]:
    """The ids of all leaves of a graph."""
    found: set[int] = set()
    seen, ahead = {root}, [root]
    while ahead:
        node = ahead.pop()
        if node is None:
            continue
        if isinstance(leaf := getattr(node, "variable", None), torch.Tensor):
            found.add(id(leaf))
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                ahead.append(following)
    return found

"""The parameters that a training tunes."""

from torch import nn

from upchirp.models import classifier_names, in_classifier
from upchirp.training.recipes.recipe import Tuned

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def freeze(model: nn.Module, tuned: Tuned) -> None:
    """Let gradients flow to the tuned parameters only; `all` leaves the model as it is.

    `head_and_norms` tunes the classifier and the layers that normalise, whose statistics a larger input shifts: what
    FixRes tunes (Touvron et al., 2019; compared with in Table 11).

    >>> from upchirp.models import create_model
    >>> model = create_model("resnet10t", num_classes=10)
    >>> freeze(model, "head_and_norms")
    >>> model.fc.weight.requires_grad, model.bn1.weight.requires_grad, model.layer1[0].conv1.weight.requires_grad
    (True, True, False)

    Raises:
        InputError: a model that does not say which layer is its classifier.
    """
    if tuned == "all":
        return
    head = classifier_names(model)
    normalises = {name for name, module in model.named_modules() if _is_norm(module)}
    for name, parameter in model.named_parameters():
        tune = name.rpartition(".")[0] in normalises or in_classifier(name, head)
        parameter.requires_grad_(tune)


def _is_norm(module: nn.Module) -> bool:
    # timm has norms of its own that derive from none of torch's; what contains other layers is more than a norm.
    simple = not any(True for child in module.children() for _ in child.parameters())
    return isinstance(module, _NORMS) or (simple and "norm" in type(module).__name__.lower())

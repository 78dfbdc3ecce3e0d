"""Which warnings are errors while tests run."""

import warnings

import pytest


def warn(category: type[Warning], module: str) -> None:
    warnings.warn_explicit("this is old", category, f"{module}.py", 1, module=module)


@pytest.mark.parametrize("module", ["torch", "torch.utils.mkldnn", "torchvision.ops.boxes", "timm.models"])
@pytest.mark.parametrize("category", [DeprecationWarning, PendingDeprecationWarning, FutureWarning])
def test_what_dependencies_call_of_each_other_is_shown(category: type[Warning], module: str) -> None:
    with warnings.catch_warnings(record=True) as shown:
        warn(category, module)
    assert [str(warning.message) for warning in shown] == ["this is old"]


@pytest.mark.parametrize("module", ["upchirp.data.loader", "tests.data.test_loader", "torchlike", "timmy.models"])
@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning, UserWarning])
def test_what_is_called_here_is_an_error(category: type[Warning], module: str) -> None:
    with pytest.raises(category):
        warn(category, module)


def test_warnings_of_another_kind_are_errors_wherever_they_come_from() -> None:
    with pytest.raises(UserWarning):
        warn(UserWarning, "torch.optim.lr_scheduler")
    with pytest.raises(RuntimeWarning):
        warn(RuntimeWarning, "torch.utils.data.dataloader")


def test_a_deprecated_function_is_an_error_where_it_is_called() -> None:
    def renamed() -> None:
        warnings.warn("use another", FutureWarning, stacklevel=2)

    with pytest.raises(FutureWarning):
        renamed()

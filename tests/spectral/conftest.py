import pytest
import torch

# Largest absolute error allowed for values of order 1, by the dtype of the images.
TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 8e-2,
}


@pytest.fixture(params=list(TOLERANCES), ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def tolerance(dtype: torch.dtype) -> float:
    return TOLERANCES[dtype]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)

"""The polynomial."""

import numpy as np
import pytest
import torch

from issgd_cli.errors import ConfigError
from issgd_cli.networks import Sizes
from tests.networks.made import initial, made


@pytest.mark.parametrize("shape", [(), (1,)])
def test_it_is_a_polynomial_of_its_input(shape: tuple[int, ...]) -> None:
    model = initial("polynomial", "polynomial.order=6", sizes=Sizes(shape, 1))
    x = np.linspace(-2, 2, 9)
    coefficients = model.get_parameter("coefficients.weight").detach().numpy()[0]
    assert coefficients.shape == (7,)
    found = model(torch.from_numpy(x).float().reshape(-1, *shape)).detach().numpy()
    assert found.shape == (9, 1)
    np.testing.assert_allclose(found[:, 0], np.polynomial.polynomial.polyval(x, coefficients), rtol=1e-4, atol=1e-4)


def test_more_than_one_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="is of one number"):
        made("polynomial", sizes=Sizes((2,), 1))

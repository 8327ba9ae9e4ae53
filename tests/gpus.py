"""What tests that need a GPU share: they have on_gpu in their names, and are skipped where there is none."""

import os

import pytest
import torch

# Another device lets a machine without a GPU see that the tests themselves are right.
DEVICE = os.environ.get("ISSGD_TEST_DEVICE", "cuda")

needed = pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device")

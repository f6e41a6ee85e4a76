"""Products in a lower precision with weights cast once, and fp64 only where a device has it."""

import pytest
import torch

from plaudit.functional.precision import in_float64, without_gradients

CPU = torch.device("cpu")


def test_fp64_stays_on_a_device_that_has_it():
    # A meta tensor has no values, so a copy to the CPU would be an error.
    moved = in_float64(torch.ones(2, device="meta"))
    assert moved.device.type == "meta" and moved.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frozen_weights_look_trained_while_products_are_cast_and_are_frozen_again_afterwards(dtype):
    model = torch.nn.ModuleList([torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)])
    frozen, trained = (layer.weight for layer in model)
    frozen.requires_grad_(False)
    with without_gradients(model, dtype, CPU):
        assert frozen.requires_grad is (dtype == torch.bfloat16), "autocast keeps only casts of such weights"
        assert trained.requires_grad
        assert not model[1](torch.ones(1, 2)).requires_grad
    assert trained.requires_grad and not frozen.requires_grad

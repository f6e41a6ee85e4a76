"""Which device is taken, and what is said where it is not there."""

from __future__ import annotations

import pytest
import torch

from plaudit.backends.local.learner import build_optimizer
from plaudit.backends.local.precision import product_dtype, resolve_device
from plaudit.config.sections import ComputeSection, OptimizerSection
from plaudit.errors import ConfigError, MachineError, PlauditError
from plaudit.functional import precision


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine with so many GPUs of each kind."""

    def has(cuda: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return has


@pytest.mark.parametrize(
    ("cuda", "mps", "taken"), [(0, False, "cpu"), (2, False, "cuda"), (0, True, "mps"), (1, True, "cuda")]
)
def test_auto_takes_the_first_gpu_of_any_kind(machine, cuda: int, mps: bool, taken: str) -> None:
    machine(cuda, mps)
    assert resolve_device("auto").type == taken


def test_devices_that_are_there_are_taken_by_name(machine) -> None:
    machine(cuda=2, mps=True)
    assert [str(resolve_device(name)) for name in ("cpu", "cuda", "cuda:1", "mps")] == ["cpu", "cuda", "cuda:1", "mps"]


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "xpu", "meta", "hpu"])
def test_a_device_that_is_not_there_is_the_machines_fault(machine, name: str) -> None:
    machine()
    with pytest.raises(MachineError, match=f"there is no device {name}: .* has none") as error:
        resolve_device(name)
    assert error.value.exit_code == 74 and "--device cpu" in error.value.cure


def test_a_number_beyond_the_last_device_says_how_many_there_are(machine) -> None:
    machine(cuda=2)
    with pytest.raises(MachineError, match="2 of them: cuda:0 to cuda:1"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:x", "", "0"])
def test_what_is_no_device_is_a_setting_that_is_wrong(machine, name: str) -> None:
    machine(cuda=1)
    with pytest.raises(PlauditError) as error:
        resolve_device(name)
    assert isinstance(error.value, ConfigError) and error.value.exit_code == 78 and "cuda:1" in error.value.cure


def test_an_apple_gpu_computes_in_fp32_with_an_optimizer_that_it_has() -> None:
    mps = torch.device("mps")
    assert product_dtype(ComputeSection(), mps) == torch.float32
    # No such device is here to put parameters on; the one that computes nothing stands for a kind without fused AdamW.
    layer = torch.nn.Linear(2, 2, device="meta")
    assert build_optimizer(layer, OptimizerSection(lr=1e-5)).defaults["fused"] is False


def test_fp64_is_on_the_cpu_where_the_device_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []

    class OnAppleGPU:
        device = torch.device("mps")

        def cpu(self) -> torch.Tensor:
            moved.append(True)
            return torch.ones(2)

    assert precision.in_float64(OnAppleGPU()).dtype == torch.float64 and moved  # type: ignore[arg-type]
    assert precision.in_float64(torch.ones(2)).dtype == torch.float64 and len(moved) == 1

"""What is read of a GPU, with stand-ins for NVML and for torch's CUDA: they say what was asked for, and in what order."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.errors import RequestError
from harness.measure import clock, gpu
from harness.measure.disturbance import Watch, unstable
from harness.measure.memory import Account


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


class Nvml(SimpleNamespace):
    """Two GPUs; `reasons` is the bit mask of the one that is asked, `lacks` the functions that it does not support."""

    NVMLError, NVML_ERROR_NOT_SUPPORTED = NVMLError, 3
    NVML_CLOCK_GRAPHICS, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 0, 2, 0
    nvmlClocksThrottleReasonHwSlowdown = 0x8
    nvmlClocksThrottleReasonSwThermalSlowdown = 0x20
    nvmlClocksThrottleReasonHwThermalSlowdown = 0x40
    nvmlClocksThrottleReasonHwPowerBrakeSlowdown = 0x80

    def __init__(self) -> None:
        super().__init__(asked=None, reasons=0x4, lacks={}, open=0)  # 0x4 is the power cap, which harms nobody

    def nvmlInit(self) -> None:
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        self.asked = index
        return "handle"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self.asked = uuid
        return "handle"

    def _answer(self, name: str, value: int) -> int:
        if name in self.lacks:
            raise NVMLError(self.lacks[name])
        return value

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return self._answer("reasons", self.reasons)

    def nvmlDeviceGetClockInfo(self, handle: str, which: int) -> int:
        return self._answer("clock", {0: 1980, 2: 2619}[which])

    def nvmlDeviceGetPerformanceState(self, handle: str) -> int:
        return self._answer("state", 0)

    def nvmlDeviceGetTemperature(self, handle: str, sensor: int) -> int:
        return self._answer("temperature", 41)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    stand_in = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", stand_in)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return stand_in


def test_the_state_of_a_gpu(nvml: Nvml) -> None:
    assert gpu.state() == {
        "graphics_clock": 1980,
        "memory_clock": 2619,
        "power_state": 0,
        "temperature": 41,
        "throttled": [],
    }
    assert nvml.asked == 0
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("visible", "asked"),
    [("1", 1), (" 1, 0", 1), ("GPU-5ae3c5f8", "GPU-5ae3c5f8"), ("MIG-11c2,GPU-5ae3", "MIG-11c2"), ("", 0)],
)
def test_the_gpu_is_the_first_that_cuda_may_see(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch, visible: str, asked: int | str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu.state()
    assert nvml.asked == asked


def test_a_name_that_is_no_gpu(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "first")
    with pytest.raises(RequestError, match="CUDA_VISIBLE_DEVICES begins with 'first'"):
        gpu.state()
    assert nvml.open == 0


def test_what_a_gpu_does_not_show_is_none_and_other_errors_are_raised(nvml: Nvml) -> None:
    nvml.lacks = {"clock": 3, "reasons": 3}
    state = gpu.state()
    assert state is not None
    assert state["graphics_clock"] is None
    assert state["throttled"] is None
    assert state["temperature"] == 41
    nvml.lacks = {"temperature": 15}  # the GPU is lost
    with pytest.raises(NVMLError, match="15"):
        gpu.state()
    assert nvml.open == 0


def test_without_nvml_there_is_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu.state() is None


def test_throttling_makes_a_measurement_unstable(nvml: Nvml) -> None:
    watch = Watch(gpu=True)
    nvml.reasons = 0x4 | 0x40
    found = watch.stop()
    assert found["gpu"]["before"]["throttled"] == []
    assert found["gpu"]["after"]["throttled"] == ["hardware thermal slowdown"]
    assert (
        unstable(found | {"seconds": 10.0, "others": 0.0}) == "the GPU was throttled: hardware thermal slowdown"
    )


class Cuda:
    """A device whose clock goes on by `cost` ms a run, and whose allocator holds what the test says."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.now = 0.0
        self.allocated = self.reserved = self.peak = self.peak_reserved = 0

    def allocate(self, size: int) -> None:
        self.allocated += size
        self.reserved = max(self.reserved, self.allocated)
        self.peak = max(self.peak, self.allocated)
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def event(self, enable_timing: bool) -> Any:
        assert enable_timing
        mark = SimpleNamespace(at=0.0)

        def record() -> None:
            mark.at = self.now
            self.log.append("event")

        mark.record = record
        mark.synchronize = lambda: self.log.append("event done")
        mark.elapsed_time = lambda other: other.at - mark.at
        return mark

    def reset(self) -> None:
        self.peak, self.peak_reserved = self.allocated, self.reserved


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    device = Cuda()
    real = torch.empty

    def empty(size: int, **options: Any) -> Any:
        assert options.pop("device") == "cuda"
        assert real(1, **options).element_size() == 1
        return SimpleNamespace(zero_=lambda: device.log.append(f"flush {size}"))

    monkeypatch.setattr(torch, "empty", empty)
    stand_ins = {
        "Event": device.event,
        "current_device": lambda: 0,
        "get_device_properties": lambda which: SimpleNamespace(L2_cache_size=50),
        "synchronize": lambda: device.log.append("synchronize"),
        "memory_allocated": lambda: device.allocated,
        "memory_reserved": lambda: device.reserved,
        "max_memory_allocated": lambda: device.peak,
        "max_memory_reserved": lambda: device.peak_reserved,
        "reset_peak_memory_stats": device.reset,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return device


def test_device_events_time_the_runs_and_not_the_flush(cuda: Cuda) -> None:
    def run() -> str:
        cuda.log.append("run")
        cuda.now += 4.0
        return "output"

    timing = clock.timed(run, 3, "cuda-events", runs_per_sample=2, flush=True)
    assert timing.samples == pytest.approx([4e-3] * 3)  # events count in ms, samples in seconds
    assert timing.output == "output"
    one = ["flush 100", "synchronize", "event", "run", "run", "event", "event done"]
    assert cuda.log == one * 3
    cuda.log.clear()
    clock.timed(run, 1, "cuda-events")
    assert cuda.log == ["synchronize", "event", "run", "event", "event done"]


def test_device_memory_is_above_the_level_before(cuda: Cuda) -> None:
    cuda.allocate(1000)  # somebody's before us
    account = Account("cuda")
    with account.preparing():
        cuda.allocate(300)
        cuda.allocate(-100)
    with account.running():
        cuda.allocate(500)
        cuda.allocate(-500)
    peaks = account.peaks()
    assert peaks["device"] == 700  # 200 that were kept and 500 of the run
    assert peaks["device_reserved"] == 700
    assert "synchronize" in cuda.log
    assert Account("cpu").peaks()["device"] is None

"""Recording steps with the device's own profiler: torch_npu's on an NPU, torch's on CUDA and the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from burnish.console import notice, warn
from burnish.device.pick import Device

SKIPPED_STEPS = 2
"""Steps before the recorded ones: the first pays for compiling and memory, the second warms the profiler."""
_TABLE_ROWS = 40


class StepProfiler:
    """Records `num_steps` optimizer steps of a run and leaves their trace in a folder.

    The caller calls start before the first step, step after each, and stop after the last.
    """

    def __init__(self, device: Device, folder: Path, num_steps: int) -> None:
        self.device, self.folder, self.num_steps = device, folder, num_steps
        self._done = 0
        self._told = False
        self._profile: Any = None

    def start(self) -> None:
        """Begin to watch."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._profile = _npu_profile(self) if self.device.kind == "npu" else _torch_profile(self)
        self._profile.start()

    def step(self) -> None:
        """One optimizer step is done."""
        if self._profile is None:
            return
        self._done += 1
        self._profile.step()
        if self._done == SKIPPED_STEPS + self.num_steps:
            self.stop()

    def stop(self) -> None:
        """End watching; where the run was too short, say that there is no trace."""
        if self._profile is None:
            return
        profile, self._profile = self._profile, None
        profile.stop()
        if self._done <= SKIPPED_STEPS:
            warn(f"--profile: no trace, for the run had {self._done} steps and the first {SKIPPED_STEPS} are skipped")
        elif not self._told:
            self.tell(self.folder)

    def tell(self, path: Path) -> None:
        """Say where the trace is."""
        self._told = True
        notice(f"profile: {min(self._done - SKIPPED_STEPS, self.num_steps)} steps in {path}")


def _torch_profile(profiler: StepProfiler) -> Any:
    from torch.profiler import ProfilerActivity, profile, schedule

    activities = [ProfilerActivity.CPU]
    if profiler.device.kind == "cuda":
        activities.append(ProfilerActivity.CUDA)

    def write(finished: Any) -> None:
        trace = profiler.folder / "trace.json"
        finished.export_chrome_trace(str(trace))
        order = "self_cuda_time_total" if profiler.device.kind == "cuda" else "self_cpu_time_total"
        table = finished.key_averages().table(sort_by=order, row_limit=_TABLE_ROWS)
        (profiler.folder / "operators.txt").write_text(table, encoding="utf-8")
        profiler.tell(trace)

    plan = schedule(wait=SKIPPED_STEPS - 1, warmup=1, active=profiler.num_steps, repeat=1)
    return profile(activities=activities, schedule=plan, on_trace_ready=write, record_shapes=True)


def _npu_profile(profiler: StepProfiler) -> Any:
    import torch_npu  # pyright: ignore[reportMissingImports]

    npu: Any = torch_npu.profiler
    detail = npu._ExperimentalConfig(
        profiler_level=npu.ProfilerLevel.Level1, aic_metrics=npu.AiCMetrics.PipeUtilization
    )
    return npu.profile(
        activities=[npu.ProfilerActivity.CPU, npu.ProfilerActivity.NPU],
        schedule=npu.schedule(wait=SKIPPED_STEPS - 1, warmup=1, active=profiler.num_steps, repeat=1),
        on_trace_ready=npu.tensorboard_trace_handler(str(profiler.folder)),
        record_shapes=True,
        experimental_config=detail,
    )

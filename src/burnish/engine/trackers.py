"""Experiment trackers, through accelerate; off unless asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from burnish.errors import ConfigError
from burnish.secrets import redact


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers whose package is missing; accelerate would leave them out silently."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"--report_to {name}: the package is not installed. pip install {name}")


def tracker_options(names: Sequence[str], folder: Path) -> dict[str, Any]:
    """Arguments of Accelerator for these trackers; event files go into `folder`."""
    if not names:
        return {}
    from accelerate.utils import ProjectConfiguration

    return {
        "log_with": list(names),
        "project_config": ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / "trackers")),
    }


def start_trackers(accelerator: Any, *, project: str, run_name: str, settings: Mapping[str, Any]) -> None:
    """Open the trackers and hand them the settings, as text where a tracker takes only plain values."""
    plain = {
        key: value if isinstance(value, int | float | bool) else redact(str(value)) for key, value in settings.items()
    }
    run_name = redact(run_name)
    named = {"wandb": {"name": run_name}, "swanlab": {"experiment_name": run_name}, "trackio": {"name": run_name}}
    accelerator.init_trackers(project, config=plain, init_kwargs=named)


def finish_trackers(accelerator: Any) -> None:
    """Close the trackers, once. Accelerate's end_training closes the process group too, which saving still needs."""
    if accelerator.is_main_process:
        for tracker in accelerator.trackers:
            tracker.finish()
    accelerator.trackers.clear()

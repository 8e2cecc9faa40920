"""Ascend's torch_npu, loaded by us: a half-installed one must not stop a run on another device.

torch imports every installed backend when it is imported itself, and raises where one fails; transformers imports
torch_npu again wherever it finds it. So the guard, installed by `import burnish` and costing nothing until torch is
imported, lets torch start without backends, then imports torch_npu with the settings that training wants, and where
that fails hides it from this process and keeps the reason. Imports nothing heavy.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import MutableMapping, Sequence
from types import ModuleType

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
PACKAGE = "torch_npu"
_ALLOCATOR = "PYTORCH_NPU_ALLOC_CONF"


class _State:
    problem: str = ""
    """Why torch_npu could not be loaded; empty where it was, or is not there."""
    settings: tuple[str, ...] = ()
    """Environment settings that were made for this process, as the user would write them."""


def install_guard() -> None:
    """See to it that torch_npu is loaded after torch, or hidden; called once, by `import burnish`."""
    if PACKAGE in sys.modules or importlib.util.find_spec(PACKAGE) is None:
        return
    if "torch" in sys.modules:
        load_torch_npu()
    else:
        sys.meta_path.insert(0, _TorchFinder())


def load_torch_npu() -> None:
    """Import torch_npu where it is installed and not loaded yet; where that fails, hide it and keep the reason."""
    if PACKAGE in sys.modules or importlib.util.find_spec(PACKAGE) is None:
        return
    made = choose_environment(os.environ)
    os.environ.update(made)
    _State.settings = tuple(f"{name}={value}" for name, value in made.items())
    try:
        importlib.import_module(PACKAGE)
    except Exception as error:  # whatever a broken driver stack raises, the other devices still work
        _State.problem = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        _State.settings = ()
        for name in made:
            del os.environ[name]
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
        sys.modules[PACKAGE] = None  # pyright: ignore[reportArgumentType] (what makes an import and a search fail)


def choose_environment(environment: MutableMapping[str, str]) -> dict[str, str]:
    """What training on an NPU wants of torch_npu, where the user has said nothing: read when torch_npu is imported.

    Memory segments that grow keep long runs from fragmenting it; a task queue of level 2 overlaps most of the host's
    work with the device's. The vendor ends with an error where both allocator variables are set, and a blocking launch
    excludes the queue: then nothing is set.
    """
    made: dict[str, str] = {}
    if _ALLOCATOR not in environment and "PYTORCH_ALLOC_CONF" not in environment:
        made[_ALLOCATOR] = "expandable_segments:True"
    if "TASK_QUEUE_ENABLE" not in environment and environment.get("ASCEND_LAUNCH_BLOCKING", "0") == "0":
        made["TASK_QUEUE_ENABLE"] = "2"
    return made


def loading_problem() -> str:
    """Why torch_npu is hidden from this process; empty where it is loaded or not installed."""
    return _State.problem


def made_settings() -> tuple[str, ...]:
    """Environment variables that were set before torch_npu was imported, each as NAME=value."""
    return _State.settings


class _TorchFinder(importlib.abc.MetaPathFinder):
    """Finds torch as ever, and takes part in its import once."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _TorchLoader(spec.loader)
        return spec


class _TorchLoader(importlib.abc.Loader):
    """Runs torch's own loader without backends, then loads the vendor's."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        before = os.environ.get(AUTOLOAD)
        os.environ[AUTOLOAD] = "0"
        try:
            self.loader.exec_module(module)
        finally:
            if before is None:
                del os.environ[AUTOLOAD]
            else:
                os.environ[AUTOLOAD] = before
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        load_torch_npu()

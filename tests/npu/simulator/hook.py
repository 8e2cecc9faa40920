"""Installs the host's values as soon as a process has imported torch_npu, whoever imports it and when."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from npu.simulator.log import write_at_exit

LAYER_VARIABLE = "SIMULATED_NPU"


def is_simulated() -> bool:
    """Whether this process belongs to a simulated machine."""
    return LAYER_VARIABLE in os.environ


def install() -> None:
    """Watch for the import of torch_npu in this process; called by the start folder's sitecustomize."""
    if is_simulated():
        write_at_exit()
        sys.meta_path.insert(0, _Watcher())


class _Watcher(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "torch_npu":
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            sys.meta_path.insert(0, self)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        from npu.simulator.aten_kernels import install_aten_kernels
        from npu.simulator.hccl import install_hccl
        from npu.simulator.registered import remember_the_wheels
        from npu.simulator.vendor_kernels import install_vendor_kernels

        remember_the_wheels()
        install_aten_kernels()
        install_hccl()
        install_vendor_kernels()

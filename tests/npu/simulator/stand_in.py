"""A stand-in for CANN, the driver library under torch_npu: device memory is host memory, and nothing else happens.

The symbols that the wheel wants are read from its own shared objects; those that matter are written below in C, the
others return 0. Built with the system's C compiler at test time; no binary is kept in the repository.

Environment of a process that runs on it:
    SIMULATED_NPU_COUNT   devices, 1 by default
    SIMULATED_NPU_CHIP    what the driver calls the chip, Ascend910B2 by default
    SIMULATED_NPU_BYTES   memory of each device, 64 GiB by default; allocations beyond it fail as the driver's do
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from npu.simulator.wheel import CannotSimulate

TOOLS = ("cc", "nm", "strings")
"""A C compiler and binutils, of the system."""
LIBRARIES = ("hccl", "ascendcl", "acl_op_compiler", "ge_runner", "graph", "acl_tdt_channel")
"""What the wheel links against; all lead to the one stand-in."""
_WANTED = re.compile(
    r"(acl(rt|op|mdl|prof|dump|tdt)?[A-Z]|Hccl[A-Z]|hccl[A-Z]|Hcom|Msprof|rt[A-Z]|aml|Aml|mm[A-Z]|Tdt|tdt)\w*"
)
_BY_NAME = re.compile(r"acl(rt|op|mdl|prof|dump|tdt)?[A-Z]\w*|[Hh]ccl[A-Z]\w*")
"""What the wheel looks up by name at run time; operators (aclnn…) are left out, so that each one is missed aloud."""
SOURCE = r"""
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define OUT_OF_DEVICE_MEMORY 207001

static __thread int current_device = 0;
static size_t held_bytes = 0;

static size_t number(const char *name, size_t otherwise) {
    const char *text = getenv(name);
    return text ? strtoull(text, 0, 10) : otherwise;
}
static size_t device_bytes(void) { return number("SIMULATED_NPU_BYTES", 64ull << 30); }
static int new_handle(void **handle) { *handle = calloc(1, 64); return 0; }
static int host_memory(void **memory, size_t bytes) { return posix_memalign(memory, 512, bytes ? bytes : 512); }
static int device_memory(void **memory, size_t bytes) {
    if (held_bytes + bytes > device_bytes()) return OUT_OF_DEVICE_MEMORY;
    if (host_memory(memory, bytes)) return OUT_OF_DEVICE_MEMORY;
    __sync_fetch_and_add(&held_bytes, malloc_usable_size(*memory));
    return 0;
}

int aclrtGetDeviceCount(uint32_t *count) { *count = number("SIMULATED_NPU_COUNT", 1); return 0; }
int aclrtGetDevice(int32_t *device) { *device = current_device; return 0; }
int aclrtSetDevice(int32_t device) { current_device = device; return 0; }
const char *aclrtGetSocName(void) {
    const char *chip = getenv("SIMULATED_NPU_CHIP");
    return chip ? chip : "Ascend910B2";
}
int aclrtGetMemInfo(int kind, size_t *available, size_t *total) {
    *total = device_bytes();
    *available = *total - held_bytes;
    return 0;
}
int aclrtMalloc(void **memory, size_t bytes, int policy) { return device_memory(memory, bytes); }
int aclrtMallocAlign32(void **memory, size_t bytes, int policy) { return device_memory(memory, bytes); }
int aclrtMallocWithCfg(void **memory, size_t bytes, int policy, void *options) { return device_memory(memory, bytes); }
int aclrtMallocHost(void **memory, size_t bytes) { return host_memory(memory, bytes); }
int aclrtMallocHostWithCfg(void **memory, size_t bytes, void *options) { return host_memory(memory, bytes); }
int aclrtFree(void *memory) {
    if (memory) __sync_fetch_and_sub(&held_bytes, malloc_usable_size(memory));
    free(memory);
    return 0;
}
int aclrtFreeHost(void *memory) { free(memory); return 0; }
int aclrtMemcpy(void *to, size_t room, const void *from, size_t bytes, int kind) { memcpy(to, from, bytes); return 0; }
int aclrtMemcpyAsync(void *to, size_t room, const void *from, size_t bytes, int kind, void *stream) {
    memcpy(to, from, bytes);
    return 0;
}
int aclrtMemset(void *memory, size_t room, int value, size_t bytes) { memset(memory, value, bytes); return 0; }
int aclrtMemsetAsync(void *memory, size_t room, int value, size_t bytes, void *stream) {
    memset(memory, value, bytes);
    return 0;
}
int aclrtCreateStream(void **stream) { return new_handle(stream); }
int aclrtCreateStreamWithConfig(void **stream, uint32_t priority, uint32_t flag) { return new_handle(stream); }
int aclrtCreateEvent(void **event) { return new_handle(event); }
int aclrtCreateEventWithFlag(void **event, uint32_t flag) { return new_handle(event); }
int aclrtCreateEventExWithFlag(void **event, uint32_t flag) { return new_handle(event); }
int aclrtGetCurrentContext(void **context) { *context = (void *)&current_device; return 0; }
int aclrtGetStreamId(void *stream, int32_t *id) { *id = 0; return 0; }
int aclrtQueryEventStatus(void *event, int *status) { *status = 1; return 0; }
int aclrtQueryEventWaitStatus(void *event, int *status) { *status = 1; return 0; }
int aclrtStreamQuery(void *stream, int *status) { *status = 1; return 0; }
int aclrtEventElapsedTime(float *milliseconds, void *from, void *to) { *milliseconds = 0; return 0; }
int aclrtPointerGetAttributes(const void *memory, void *attributes) { memset(attributes, 0, 32); return 0; }
size_t aclGetCompileoptSize(int option) { return 64; }
int aclGetCompileopt(int option, char *value, size_t room) { strncpy(value, "must_keep_origin_dtype", room); return 0; }
const char *aclGetRecentErrMsg(void) { return ""; }
"""


def build_stand_in(wheel: Path) -> Path:
    """The folder with the stand-in's shared objects for a wheel; built where it is not there yet, about 2 s.

    Raises:
        CannotSimulate: no C compiler or no binutils.
    """
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    folder = wheel.parent / f"{wheel.name}-cann-{key}"
    if folder.is_dir():
        return folder
    for tool in TOOLS:
        if shutil.which(tool) is None:
            raise CannotSimulate(f"the stand-in for CANN needs a C compiler and binutils; there is no {tool}")
    fresh = Path(tempfile.mkdtemp(prefix="building-", dir=wheel.parent))
    try:
        _compile(fresh, SOURCE + _empty_functions(_wanted_names(wheel / "torch_npu")))
        fresh.rename(folder)
    except OSError:  # another test process was faster
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _wanted_names(package: Path) -> set[str]:
    """Names that the wheel's shared objects leave undefined, or look up by name."""
    undefined, defined = set[str](), set[str]()
    for library in package.rglob("*.so"):
        undefined |= _symbols(library, "--undefined-only")
        defined |= _symbols(library, "--defined-only")
    texts = _run("strings", "-n", "5", str(package / "lib" / "libtorch_npu.so")).split("\n")
    by_name = {text for text in texts if _BY_NAME.fullmatch(text) and not text.startswith("aclnn")}
    return {name for name in undefined - defined if _WANTED.fullmatch(name)} | by_name


def _symbols(library: Path, which: str) -> set[str]:
    lines = _run("nm", "-D", which, str(library)).splitlines()
    return {line.split()[-1].split("@")[0] for line in lines if line.strip()}


def _empty_functions(names: set[str]) -> str:
    written = set(re.findall(r"[ *](acl\w+)\(", SOURCE))
    return "".join(f"long {name}(void) {{ return 0; }}\n" for name in sorted(names - written))


def _compile(folder: Path, source: str) -> None:
    (folder / "cann.c").write_text(source)
    compiler = ["cc", "-O1", "-shared", "-fPIC", "-w"]
    _run(*compiler, "-Wl,-soname,libcann.so", "-o", str(folder / "libcann.so"), str(folder / "cann.c"))
    for name in LIBRARIES:
        # An empty library that brings the stand-in with it, whichever of the names is asked for first.
        linking = f"-Wl,-soname,lib{name}.so,--no-as-needed,-rpath,$ORIGIN"
        nothing = ("-x", "c", "/dev/null", "-x", "none")
        _run(*compiler, linking, "-o", str(folder / f"lib{name}.so"), *nothing, f"-L{folder}", "-lcann")


def _run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout

"""Names cause and cure of error texts, one line or a whole log."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from burnish.device.doctor.faults import FAULTS, HINTS, Fault
from burnish.device.doctor.findings import Both

_ERR = re.compile(r"\bERR(\d{2})(\d{3})\b")
_MODULE_WORDS = {
    "00": Both("torch_npu itself (PTA)", "torch_npu 本身（PTA）"),
    "01": Both("an operator (OPS)", "算子（OPS）"),
    "02": Both("communication between ranks (DIST)", "多卡通信（DIST）"),
    "03": Both("graph mode (GRAPH)", "图模式（GRAPH）"),
    "04": Both("the profiler (PROF)", "性能分析（PROF）"),
}
_REASON_WORDS = {
    1: Both("invalid parameter", "参数无效"),
    2: Both("invalid type", "类型无效"),
    3: Both("invalid value", "值无效"),
    4: Both("invalid pointer", "指针无效"),
    5: Both("internal error", "内部错误"),
    6: Both("memory error", "内存错误"),
    7: Both("not supported", "不支持该功能"),
    8: Both("resource not found", "资源不存在"),
    9: Both("resource not available", "资源不可用"),
    10: Both("a system call failed", "系统调用失败"),
    11: Both("time is over", "超时"),
    12: Both("no permission", "权限不足"),
    100: Both("a call into CANN (ACL) failed", "调用 CANN（ACL）接口失败"),
    200: Both("a call into HCCL failed", "调用 HCCL 接口失败"),
    300: Both("a call into the graph engine failed", "调用图引擎（GE）接口失败"),
}
_LONGEST = 4000
"""Characters of a line that are looked at: error texts stand at its start, and bars can make a line of megabytes."""
_READ_ON = Both(
    "Read the message before the code; for ERRxx100 the lines after it carry CANN's own error.",
    "请看错误码之前的说明；若为 ERRxx100，其后的几行是 CANN 自身的错误。",
)
_UNKNOWN_CAUSE = Both("not a text that burnish knows", "burnish 不认识这条信息")
_UNKNOWN_CURE = Both(
    "Read the whole message, and ~/ascend/log/debug/plog on an NPU.",
    "请阅读完整信息；NPU 上请再看 ~/ascend/log/debug/plog。",
)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A known text that was found, where, and what it means."""

    name: str
    line_number: int
    """Counted from 1."""
    line: str
    cause: Both
    cure: Both
    generic: bool
    times: int = 1


def explain(lines: Iterable[str]) -> list[Explanation]:
    """Find every known text, each once: the particular ones in order of appearance, then the generic ones.

    The first of the result is where to begin: the earliest error that is not the echo of another.
    """
    found: dict[str, Explanation] = {}
    for number, line in enumerate(lines, start=1):
        for name, cause, cure, generic in _meanings(line[:_LONGEST]):
            known = found.get(name)
            if known is None:
                found[name] = Explanation(name, number, _shortened(line), cause, cure, generic)
            else:
                found[name] = Explanation(
                    name, known.line_number, known.line, known.cause, known.cure, known.generic, known.times + 1
                )
    return sorted(found.values(), key=lambda item: (item.generic, item.line_number))


def explain_line(text: str) -> tuple[Both, Both]:
    """Give the cause and cure of a message, of several lines perhaps; says so where it is not known."""
    found = explain(text.splitlines())
    return (found[0].cause, found[0].cure) if found else (_UNKNOWN_CAUSE, _UNKNOWN_CURE)


def _meanings(line: str) -> list[tuple[str, Both, Both, bool]]:
    lower = line.lower()
    if not any(hint in lower for hint in HINTS):
        return []
    particular = next((fault for fault in FAULTS if not fault.generic and fault.fits(line)), None)
    generic = next((fault for fault in FAULTS if fault.generic and fault.fits(line)), None)
    # A code inside a line that is explained already adds nothing: EZ9999 beside "Cannot find bin of op".
    chosen = particular or generic
    meanings = [_of(chosen)] if chosen else []
    code = _ERR.search(line)
    if code and code.group(0) != "ERR99999" and not particular:
        meanings.append(_decoded(code.group(1), code.group(2)))
    return meanings


def _of(fault: Fault) -> tuple[str, Both, Both, bool]:
    return fault.name, fault.cause, fault.cure, fault.generic


def _decoded(module: str, reason: str) -> tuple[str, Both, Both, bool]:
    where = _MODULE_WORDS.get(module, Both(f"module {module}", f"模块 {module}"))
    what = _REASON_WORDS.get(int(reason), Both(f"code {reason}", f"代码 {reason}"))
    cause = Both(f"{where.english}: {what.english}", f"{where.chinese}：{what.chinese}")
    return f"ERR{module}{reason}", cause, _READ_ON, True


def _shortened(line: str, limit: int = 160) -> str:
    text = " ".join(line.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"

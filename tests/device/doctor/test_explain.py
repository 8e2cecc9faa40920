"""Every error text that a user of the NPU stack meets has a cause and a cure."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from burnish.device.doctor.command import explain_text
from burnish.device.doctor.explain import explain
from burnish.device.doctor.faults import FAULTS
from burnish.device.doctor.messages import Language

TEXTS = [
    ("cann_not_loaded", "ImportError: libhccl.so: cannot open shared object file: No such file or directory"),
    ("cann_not_loaded", "OSError: libascendcl.so: cannot open shared object file: No such file or directory"),
    ("driver_library", "ImportError: libascend_hal.so: cannot open shared object file: No such file or directory"),
    (
        "autoload",
        "RuntimeError: Failed to load the backend extension: torch_npu. You can disable extension auto-loading",
    ),
    ("pair_mismatch", "ImportError: /v/torch_npu/lib/libtorch_npu.so: undefined symbol: _ZNK4c10d7Backend15incrE"),
    ("pair_mismatch", "AttributeError: module 'torch_npu' has no attribute '_autoload'"),
    ("atb_mismatch", "OSError: /v/torch_npu/lib/libop_plugin_atb.so: undefined symbol: _ZN3atb9CreateOpE"),
    ("atb_mismatch", "/usr/local/Ascend/libtbe_adapter.so: undefined symbol: _ZN2ge5AnyE"),
    ("two_accelerators", "RuntimeError: Two accelerators cannot be used at the same time in PyTorch: npu and cuda."),
    ("home_half_set", "RuntimeError: ASCEND_RUNTIME_PATH /usr/local/Ascend/runtime does not exist"),
    ("home_half_set", "Warning: ASCEND_HOME_PATH environment variable is not set."),
    (
        "two_allocators",
        "Both PYTORCH_NPU_ALLOC_CONF and PYTORCH_ALLOC_CONF have been set, please set only one of them.",
    ),
    ("python_packages", "RuntimeError: AclSetCompileopt(aclCompileOpt::ACL_PRECISION_MODE), error code is 500001"),
    ("python_packages", "500001"),
    ("python_packages", "EH9999: Inner Error! init env failed!"),
    ("no_kernel", "EZ9999: Inner Error! Cannot find bin of op FusedAdam"),
    ("no_kernel", "call aclnnCast failed, error code is 561103"),
    (
        "no_kernel",
        "RuntimeError: aclnnMatmul or aclnnMatmulGetWorkspaceSize not in libopapi.so, or libopapi.so not found.",
    ),
    ("opp_refused", "NPU function error: aclrtSetDevice, error code is 507033"),
    ("opp_refused", "ACL error 507008"),
    ("opp_refused", "E30006: Failed to verify the OPP package"),
    ("dcmi", "dcmi module initialize failed. ret is -8005"),
    ("dcmi", "dcmi model initialized failed, because the device is used. ret is -8020"),
    ("link_timeout", "EI0006: Getting socket times out. Reason: Remote Rank did not send the data in time."),
    ("notify_timeout", "EI0002: The wait execution of the Notify register times out. Reason: Notify wait timeout"),
    ("notify_timeout", "rtStreamSynchronize failed, error code 507048"),
    ("port", "torch.distributed.DistNetworkError: Socket Timeout"),
    ("port", "RuntimeError: The server socket has failed to bind: Address already in use"),
    ("exit_hook", "[ERROR] 2026-11-01-10:00:00 (PID:9, Device:0, RankID:-1) ERR99999 UNKNOWN applicaiton exception"),
    ("inner_error", "E19999: Inner Error!"),
    ("inner_error", "EZ9999: [PID: 12] 2026-11-01"),
    ("inner_error", "EH9999: Inner Error!"),
    ("vector_core", "507035"),
    ("vector_core", "reason=[vector core exception], code=507035"),
    ("ai_core", "error code is 507015, aicore exception"),
    ("ai_core", "ACL stream synchronize failed, error code:507018"),
    ("runtime_507", "error code is 507001"),
    ("heartbeat", "error code is 507010"),
    (
        "kernel_notice",
        "Detected kernel version 4.19.90, which is below the recommended minimum of 5.5.0; this can cause",
    ),
    (
        "fork",
        "RuntimeError: Cannot re-initialize NPU in forked subprocess. To use NPU with multiprocessing, use 'spawn'",
    ),
    ("float64", 'RuntimeError: "cumsum" not implemented for DT_DOUBLE'),
    ("out_of_memory", "RuntimeError: NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 60.97 GiB total capacity)"),
    ("out_of_memory", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB"),
    ("stale_gradients", "ValueError: set_to_none is not supported in fused optimizers"),
    ("stale_gradients", "TypeError: Fused optimizer's parameters must be either float32 or float16, but received"),
    ("stale_gradients", 'TrainingArguments(optim="adamw_torch_npu_fused")'),
    (
        "cpu_fallback",
        "[W] CAUTION: The operator 'aten::x' is not currently supported on the NPU backend and will fall back to run",
    ),
    (
        "cpu_fallback",
        "CAUTION: The operator aten::logit is not supported. Now this operator will fallback to run on the CPU and may",
    ),
    (
        "cpu_fallback",
        "the NPU interface does not support operator 'aten::x', the operator will fall back to CPU.",
    ),
    ("collective_code", "EI0001: environment variable is invalid"),
    ("operator_code", "EZ1001: dtype not supported"),
    ("cuda_not_built", "AssertionError: Torch not compiled with CUDA enabled"),
    ("cuda_driver_old", "RuntimeError: The NVIDIA driver on your system is too old (found version 11040)."),
]


@pytest.mark.parametrize(("name", "text"), TEXTS)
def test_the_text_is_known(name: str, text: str):
    assert explain([text])[0].name == name


def test_every_text_that_was_collected_is_known(shared_dir: Path):
    """The table of error texts that the NPU's users report, row by row and text by text."""
    collected = (shared_dir / "ascend.md").read_text()
    rows = collected[collected.index("Errors → cause → cure") : collected.index("doctor checks, in order")].splitlines()
    texts = [row.split("|")[1] for row in rows[3:] if row.startswith("|")]
    assert len(texts) == 18
    unknown = [text.strip() for text in texts if not explain([text])]
    assert unknown == ["ERRxxyyy"]  # the pattern of codes, whose decoding is tested below


def test_every_known_fault_has_an_example_here():
    assert {fault.name for fault in FAULTS} == {name for name, _ in TEXTS}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ERR00001", "torch_npu itself (PTA): invalid parameter"),
        ("ERR01002", "an operator (OPS): invalid type"),
        ("ERR02003", "communication between ranks (DIST): invalid value"),
        ("ERR04004", "the profiler (PROF): invalid pointer"),
        ("ERR01005", "an operator (OPS): internal error"),
        ("ERR00006", "torch_npu itself (PTA): memory error"),
        ("ERR00007", "torch_npu itself (PTA): not supported"),
        ("ERR01100", "an operator (OPS): a call into CANN (ACL) failed"),
        ("ERR77888", "module 77: code 888"),
    ],
)
def test_codes_of_torch_npu_are_decoded(code: str, words: str):
    (item,) = explain([f"[ERROR] 2026-11-01-10:00:00 (PID:9, Device:0, RankID:-1) {code} OPS"])
    assert item.cause.english == words


@pytest.mark.parametrize(
    "line",
    [
        "{'loss': 0.6931, 'num_tokens': 507033, 'step': 500001}",
        "saved checkpoint-507015 in 507035 ms",
        "epoch 3: 561103 rows, mean length 207018.5",
        "INFO tokenising 8005 rows",
        "{'grad_norm': 1.507018}",
    ],
)
def test_the_same_digits_elsewhere_are_no_code(line: str):
    assert explain([line]) == []


def test_a_log_is_explained_from_its_first_cause_and_echoes_come_last():
    log = """Traceback (most recent call last):
RuntimeError: Failed to load the backend extension: torch_npu. You can disable extension auto-loading
EZ9999: Inner Error!
{'loss': 0.69}
RuntimeError: NPU out of memory. Tried to allocate 2.00 GiB
error code is 507015
error code is 507015
[ERROR] 2026-11-01-10:00:00 (PID:9, Device:0, RankID:-1) ERR99999 UNKNOWN applicaiton exception""".splitlines()
    found = explain(log)
    assert [(item.name, item.line_number, item.times) for item in found] == [
        ("out_of_memory", 5, 1),
        ("ai_core", 6, 2),
        ("autoload", 2, 1),
        ("inner_error", 3, 1),
        ("exit_hook", 8, 1),
    ]


@pytest.mark.parametrize(("language", "words"), [("en", ("cause", "cure")), ("zh", ("原因", "处理"))])
def test_both_languages_name_cause_and_cure(language: Language, words: tuple[str, str]):
    out = io.StringIO()
    assert explain_text(["EI0006: Getting socket times out"], language=language, as_json=False, out=out) == 0
    assert all(word in out.getvalue() for word in words)
    assert "HCCL_CONNECT_TIMEOUT" in out.getvalue()


def test_an_unknown_text_is_called_unknown_and_exits_2():
    out = io.StringIO()
    assert explain_text(["all is well"], language="en", as_json=False, out=out) == 2
    assert "No text here that burnish knows." in out.getvalue()

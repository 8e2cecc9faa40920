"""Write docs/scaling.md and docs/zh/scaling.md from the memory model; `--check` only says whether they are current.

Run after a change of burnish.models.estimate, sharing or fit: `.venv/bin/python tools/make_scaling_docs.py`. The models
are shapes on torch's meta device, so nothing is fetched; about 20 s.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from burnish import DPOConfig, DPOTrainer
from burnish.models.adapters import add_adapter
from burnish.models.estimate import count_parameters
from burnish.models.fit import USABLE, PaperRun, Setup, fewest_devices, find_setups
from burnish.models.settings import AdapterSettings

ROOT = Path(__file__).parents[1]
GIB = 2**30
TOKENS, ROW, DEVICES = 4096, 1024, 8
MACHINES = ((1, 64), (8, 32), (8, 64), (16, 64))
"""Devices, and GiB of each."""


def _shape(hidden: int, intermediate: int, layers: int, heads: int, key_heads: int, *, tied: bool) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "vocab_size": 151936 if tied else 152064,
        "tie_word_embeddings": tied,
    }


SHAPES = {
    "0.5B": _shape(896, 4864, 24, 14, 2, tied=True),
    "1.5B": _shape(1536, 8960, 28, 12, 2, tied=True),
    "3B": _shape(2048, 11008, 36, 16, 2, tied=True),
    "7B": _shape(3584, 18944, 28, 28, 4, tied=False),
    "14B": _shape(5120, 13824, 48, 40, 8, tied=False),
    "32B": _shape(5120, 27648, 64, 40, 8, tied=False),
    "72B": _shape(8192, 29568, 80, 64, 8, tied=False),
}
"""Of Qwen2.5's public configs."""

ENGLISH = {
    "title": "# How large a model fits on how many devices",
    "other": "中文版：[docs/zh/scaling.md](zh/scaling.md)",
    "made": "<!-- made by tools/make_scaling_docs.py from burnish.models.fit; change those, not this file -->",
    "ask": (
        "Ask for your own model, data and devices before you rent them. Of the model only `config.json` and the "
        "tokenizer are read, no device is touched, and the answer names the flags that make it fit:"
    ),
    "answer": "A 7B of Qwen2.5's shape gets this answer:",
    "how": f"""\
## What is counted

Weights (an adapter's frozen base too), gradients and AdamW's two moments in float32; bf16 copies of what is multiplied; what every layer keeps for the
backward pass; a frozen reference where there is one; the head's blocks; and what devices hold to exchange (DDP's and
ZeRO's buckets, FSDP2's gathered layers). With `--deepspeed ds.json` the plan counts what its stage spreads. A plan fills {USABLE:.0%} of a device and leaves the rest to driver, allocator and buffers.

The formula is held against bytes counted storage by storage (`tests/models/test_sharing.py`): within 10 % on small
models of two families, float32 and bf16, in full and with adapters, recomputed or not, with a reference and without,
alone, as one of two under DDP and under ZeRO 1 and 2 (`tests/ranks/test_zero.py`), and as one of two, four and eight
under FSDP2; and within 10 % on a step of 7B with tensors that have shapes and no memory. **None of these figures was measured
on a card.** Fragmentation, a driver's own share and a vendor's workspace are only in the {1 - USABLE:.0%}.

On an NPU or a GPU the same formula chooses the default budget of a micro-batch (`--max_tokens_per_micro_batch`); on the
CPU it is a constant. `--dry_run` on the machine itself prints the line `memory` for one device of those that train.""",
    "each": (
        f"## Memory of one device among {DEVICES}\n\nGiB, in bf16 over float32 weights, with micro-batches of "
        f"{TOKENS:,} tokens in rows of {ROW:,} and `--gradient_checkpointing`; LoRA is rank 16 on peft's usual modules "
        "(`--use_peft`). The reference of a full run is a copy of its start, unless "
        "`--precompute_ref_log_probs` asks it first and frees it; an adapter's reference is the adapter switched off."
    ),
    "each_columns": (
        "| model | weights | full, ddp | … reference freed | full, fsdp | … reference freed | LoRA, ddp | LoRA, fsdp |"
    ),
    "spread": (
        "## More devices under FSDP2\n\nGiB of each device, as above, full training with its reference freed; what does "
        "not shrink is a micro-batch's activations and the gathered parts."
    ),
    "spread_columns": "| model | 8 devices | 16 | 32 | 64 | 128 |",
    "fits": (
        "## What `--dry_run` answers\n\nFor `burnish dpo` with no other flag, rows of up to 1,024 tokens: the mildest "
        "change of settings that fits, and the largest budget that it leaves."
    ),
    "fits_columns": "| model | " + " | ".join(f"{count} × {gib} GiB" for count, gib in MACHINES) + " |",
    "as_is": "as it is",
    "more": "in full on {count} devices: {flags}",
    "never": "not",
}
CHINESE = {
    "title": "# 多大的模型需要多少设备",
    "other": "English: [docs/scaling.md](../scaling.md)",
    "made": ENGLISH["made"],
    "ask": "租用设备之前，先用自己的模型、数据和设备数问一次。模型只读 `config.json` 和分词器，不接触任何设备，回答会给出能装下的参数：",
    "answer": "形状同 Qwen2.5-7B 的模型得到这样的回答：",
    "how": f"""\
## 计算了什么

float32 的权重（包括适配器冻结的底座）、梯度和 AdamW 的两个动量；参与矩阵乘的 bf16 副本；每层为反向传播保留的内容；冻结的参考模型（若有）；输出头的分块；
以及设备间交换所占的部分（DDP 与 ZeRO 的缓冲、FSDP2 聚合的层）。给出 `--deepspeed ds.json` 时，按其阶段所分散的部分计算。计划最多用到设备内存的 {USABLE:.0%}，其余留给驱动、分配器和缓冲区。

公式与逐个存储统计的字节数对照（`tests/models/test_sharing.py`）：两个模型家族的小模型，float32 与 bf16、全参数与适配器、是否重算、
有无参考模型，单设备、DDP 与 ZeRO 1、2（`tests/ranks/test_zero.py`）两设备之一，以及 FSDP2 二、四、八设备之一，误差都在 10 % 以内；用只有形状、没有内存的张量运行 7B 的一步，误差也在 10 % 以内。**没有一个数字是在真实
的卡上测得的。** 碎片、驱动自身的占用和厂商的工作空间只包含在那 {1 - USABLE:.0%} 里。

在 NPU 或 GPU 上，微批的默认预算（`--max_tokens_per_micro_batch`）由同一公式得出；在 CPU 上是常数。在训练机器上运行 `--dry_run`
会打印其中一台设备的 `memory` 一行。""",
    "each": (
        f"## {DEVICES} 台设备中每台的内存\n\n单位 GiB；float32 权重、bf16 计算，微批 {TOKENS:,} 个 token，每行 {ROW:,} 个，"
        "`--gradient_checkpointing`；LoRA 秩 16，作用于 peft 的常用模块（`--use_peft`）。全参数训练的参考模型是起点的副本，"
        "除非 `--precompute_ref_log_probs` 先问完再释放；适配器的参考就是关掉适配器。"
    ),
    "each_columns": "| 模型 | 权重数 | 全参数 ddp | …释放参考 | 全参数 fsdp | …释放参考 | LoRA ddp | LoRA fsdp |",
    "spread": (
        "## FSDP2 用更多设备\n\n每台设备的 GiB，条件同上，全参数、释放参考；不随设备数减少的是微批的激活和聚合的部分。"
    ),
    "spread_columns": "| 模型 | 8 台 | 16 | 32 | 64 | 128 |",
    "fits": (
        "## `--dry_run` 的回答\n\n不带其他参数的 `burnish dpo`，每行最多 1,024 个 token：能装下的、改动最小的设置，以及它允许的最大预算。"
    ),
    "fits_columns": "| 模型 | " + " | ".join(f"{count} × {gib} GiB" for count, gib in MACHINES) + " |",
    "as_is": "无需改动",
    "more": "全参数需 {count} 台：{flags}",
    "never": "不行",
}


@cache
def _model(name: str, use_peft: bool, gradient_checkpointing: bool) -> Any:
    with torch.device("meta"):
        model: Any = Qwen2ForCausalLM(Qwen2Config(**SHAPES[name])).train()
        if gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        return add_adapter(model, AdapterSettings()) if use_peft else model


def _run(name: str, devices: int, gib: int) -> PaperRun:
    build: Callable[[Setup], Any] = lambda setup: _model(name, setup.use_peft, setup.gradient_checkpointing)  # noqa: E731
    return PaperRun(build=build, devices=devices, memory=gib * GIB, row_tokens=ROW)


def _gib(name: str, setup: Setup, devices: int = DEVICES) -> str:
    return f"{_run(name, devices, 64).estimate(setup, TOKENS).total / GIB:,.1f}"


def _each(name: str) -> list[str]:
    recomputed = Setup(gradient_checkpointing=True)
    freed = replace(recomputed, precompute_ref_log_probs=True)
    adapter = replace(recomputed, use_peft=True)
    columns = [replace(setup, parallel=parallel) for parallel in ("ddp", "fsdp") for setup in (recomputed, freed)]
    columns += [adapter, replace(adapter, parallel="fsdp")]
    return [f"{count_parameters(_model(name, False, False)).total:,}", *(_gib(name, setup) for setup in columns)]


def _spread(name: str) -> list[str]:
    setup = Setup(gradient_checkpointing=True, parallel="fsdp", precompute_ref_log_probs=True)
    return [_gib(name, setup, devices) for devices in (8, 16, 32, 64, 128)]


def _fits(name: str, devices: int, gib: int, words: dict[str, str]) -> str:
    run, given = _run(name, devices, gib), Setup()
    found = find_setups(run, given)
    told = words["never"]
    if found:
        flags = found[0].setup.flags_beside(given)
        told = f"{f'`{flags}`' if flags else words['as_is']}, {found[0].max_tokens:,}"
    if any(not fitting.setup.use_peft for fitting in found):
        return told
    more = fewest_devices(run, given)
    assert more is not None, name
    flags = f"`{more[1].flags_beside(given)}`"
    return f"{told}; {words['more'].format(count=more[0], flags=flags)}"


def _table(columns: str, rows: dict[str, list[str]]) -> str:
    rule = "|" + "---|" * (columns.count("|") - 1)
    return "\n".join([columns, rule, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())])


@cache
def _answer() -> str:
    """What the command prints for 7B on eight devices of 64 GiB."""
    with tempfile.TemporaryDirectory() as folder:
        config = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **SHAPES["7B"]}
        (Path(folder) / "config.json").write_text(json.dumps(config))
        args = DPOConfig(model_name_or_path=folder, dry_run=True, devices=8, device_memory="64GiB")
        lines = DPOTrainer(args=args).plan().lines()
    return "\n".join(line.replace(folder, "./my-7b") for line in lines)


def make_page(words: dict[str, str]) -> str:
    """One page in one language."""
    command = "burnish dpo --model_name_or_path ./my-7b --dry_run --devices 8 --device_memory 64GiB"
    return "\n\n".join(
        [
            words["title"],
            words["made"],
            words["other"],
            f"{words['ask']}\n\n```bash\n{command}\n```",
            f"{words['answer']}\n\n```text\n{_answer()}\n```",
            f"{words['fits']}\n\n"
            + _table(words["fits_columns"], {n: [_fits(n, *machine, words) for machine in MACHINES] for n in SHAPES}),
            f"{words['each']}\n\n" + _table(words["each_columns"], {name: _each(name) for name in SHAPES}),
            f"{words['spread']}\n\n" + _table(words["spread_columns"], {name: _spread(name) for name in SHAPES}),
            words["how"] + "\n",
        ]
    )


def main() -> int:
    """Write both pages, or compare them with what is there."""
    pages = {"docs/scaling.md": ENGLISH, "docs/zh/scaling.md": CHINESE}
    stale = 0
    for path, words in pages.items():
        page, file = make_page(words), ROOT / path
        if file.is_file() and file.read_text(encoding="utf-8") == page:
            continue
        if "--check" in sys.argv:
            print(f"{path} is out of date: run python tools/make_scaling_docs.py")
            stale = 1
        else:
            file.write_text(page, encoding="utf-8")
            print(f"wrote {path}")
    return stale


if __name__ == "__main__":
    sys.exit(main())

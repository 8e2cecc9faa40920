"""Measures what ZeRO holds: `torchrun --nproc-per-node N zero_bytes.py CASES.json`; rank 0 prints a line a case.

A case is [family's adapter or null, precision, zero_optimization of DeepSpeed's JSON]. A line is the bytes that the
formula says, and those that were alive at the peak of the third step.
"""

from __future__ import annotations

import gc
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from burnish.cli.entry import end_process
from burnish.device.launch import build_accelerator
from burnish.device.optimizer import build_adamw
from burnish.device.pick import pick_device
from burnish.device.precision import choose_precision
from burnish.device.ranks import join_ranks
from burnish.device.zero import build_zero
from burnish.models.sharing import Zero, share_memory
from burnish.scoring.scorer import Scorer
from live_bytes import LiveBytes
from measured_steps import build_batches, build_model, step_shape


def measure(adapter: list[str] | None, precision: str, options: dict[str, Any]) -> tuple[int, int]:
    """Bytes of a case by the formula, and as they were."""
    chosen = choose_precision(precision, DEVICE)
    accelerator = build_accelerator(DEVICE, chosen)
    model = build_model("qwen2", adapter=adapter, checkpointing=False)
    shape = step_shape(chosen.dtype)
    estimate = share_memory(model, devices=RANKS.size, parallel="ddp", zero=Zero.of_options(options), **shape)
    scorer = Scorer(model)
    trained = [parameter for parameter in scorer.parameters() if parameter.requires_grad]
    adamw = build_adamw([{"params": trained}], kind="cpu", precision="fp32", lr=1e-4)
    with LiveBytes([*scorer.parameters(), *scorer.buffers()]) as measured:
        given = {"zero_optimization": options}
        step, optimizer = build_zero(scorer, adamw, given, accelerator=accelerator, max_grad_norm=1.0)
        batches = build_batches()
        for used in (batches[:1], batches[:1], batches):
            gc.collect()
            measured.peak = 0
            for batch in used:
                with nullcontext() if batch is used[-1] else step.no_sync(scorer):
                    with accelerator.autocast():
                        logps = scorer(batch).logps
                    step.backward(torch.nn.functional.logsigmoid(logps[::2] - logps[1::2]).sum())
                    del logps
            step.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return estimate.total, measured.peak


RANKS = join_ranks()
DEVICE = pick_device("cpu")
RANKS.connect(DEVICE)
for case in json.loads(Path(sys.argv[1]).read_text()):
    figures = measure(*case)
    if RANKS.is_main:
        print("BYTES", json.dumps(figures), flush=True)
end_process(0)

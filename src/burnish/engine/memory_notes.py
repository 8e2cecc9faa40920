"""What a run says and keeps when it has to compute in smaller micro-batches from now on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from burnish.console import warn
from burnish.engine.memory_retry import Overflow
from burnish.engine.passes import Passes
from burnish.engine.recorder import Recorder


@dataclass(frozen=True, slots=True)
class MemoryNotes:
    """Writes the smaller budget into run.yaml, metrics.jsonl and the log; checkpoints keep it by themselves."""

    args: Any
    passes: Passes
    recorder: Recorder

    def __call__(self, overflow: Overflow) -> None:
        """Tell that the cut of the passes has become smaller."""
        before, now = self.args.max_tokens_per_micro_batch, self.passes.cut.max_tokens
        self.args.max_tokens_per_micro_batch = now
        step = self.recorder.callbacks.state.global_step
        where = f"step {step + 1}" if self.passes.scorer.training else f"the evaluation after step {step}"
        warn(
            f"{where}: out of memory ({overflow.cause}); it starts over in micro-batches of at most {now:,} tokens "
            f"instead of {before:,}, and so does the rest of the run: the same update, more slowly"
        )
        record = {"problem": overflow.cause, "max_tokens_per_micro_batch": now, "before": before}
        self.recorder.note(record, kind="memory", step=step)
        run_dir = self.recorder.run_dir
        if run_dir is not None and (run_dir.path / "run.yaml").exists():
            run_dir.write_settings(asdict(self.args))

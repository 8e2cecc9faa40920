"""Give transformers' Trainer and burnish the same faults, and say what each makes of them.

    python benchmarks/trainer_faults.py                              # the table
    python benchmarks/trainer_faults.py --fault "a flipped byte in the weights"
    python benchmarks/trainer_faults.py --document docs/reliability.md   # the table into a page, and a .json beside

Both sides fine-tune the embedded model on the same 48 texts for 12 steps on the CPU, with dropout, and save after
every third step. "The same weights" are those of the side's own run without a fault, compared bit for bit. Each run
is a process of its own, forked from one that has everything imported; all of it takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from faulty_runs import (
    SIDES,
    STEPS,
    Ended,
    Inputs,
    Side,
    in_child,
    inputs_in,
    kill,
    limit_files,
    make_inputs,
    poison_row,
    put_nan_into,
    terminate,
)
from pages import write_between

MARKERS = ("<!-- trainer faults -->", "<!-- /trainer faults -->")
NEWEST, KILLED_STEP = 6, 8
"""The newest checkpoint of a run that is killed at the start of step 8, and the step in whose save others fail."""
_LOGGED = re.compile(r"^\{'loss'|^\{'train_runtime|^\s*$|^step \d|^\w+ \d+/\d+|tok/s|it/s")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to a run, and between it and the one that goes on from it."""

    name: str
    in_first: Callable[[Side, Inputs], None] | None = None
    """Put in place in the first run's process."""
    between: Callable[[Side, Path, Inputs], None] | None = None
    """Done to its folder, or to the inputs, before it is resumed."""
    before: Callable[[Inputs], None] | None = None
    """Done to the inputs before everything."""
    first_code_is_told: bool = False
    """Whether the first run's own end is part of the answer."""
    changes_the_run: bool = False
    """Whether the final weights cannot be those of a run without the fault, so that finite ones are all one can ask."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one side made of a fault."""

    first_code: int
    resumed_code: int | None
    """None where there was nothing to go on with: the first run was done."""
    resumed_from: int | None
    weights: str
    """same, other, NaN or none: the last step's, beside those of the run without a fault."""
    said: list[str]
    """Lines that a run without a fault does not print."""
    logs_nonfinite: bool
    """Whether a logged loss is NaN or infinite."""

    def in_words(self, fault: Fault) -> str:
        """One cell of the table."""
        parts = []
        if fault.first_code_is_told:
            parts.append(f"the run ends with {_code(self.first_code)}")
        if self.resumed_code:
            parts.append(f"the resumed run stops with {_code(self.resumed_code)}")
        elif self.resumed_code is not None:
            place = f"step {self.resumed_from}" if self.resumed_from else "the start"
            parts.append(f"goes on from {place}")
        if self.weights == "none":
            parts.append("no final weights")
        elif self.weights == "NaN":
            logged = "with it" if self.logs_nonfinite else "while every logged loss is a number"
            parts.append(f"**final weights are NaN**, {logged}")
        elif fault.changes_the_run:
            parts.append("finite final weights")
        else:
            parts.append(f"{'the same' if self.weights == 'same' else '**other**'} final weights")
        return "; ".join(parts) + f". {_said(self.said)}"


def main() -> int:
    """Run every fault on both sides; print and keep the table."""
    options = read_options()
    faults = [fault for fault in FAULTS if options.fault in (None, fault.name)]
    outcomes: dict[str, dict[str, Outcome]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for side in SIDES:
            bench = Bench(side, work / side.name)
            for fault in faults:
                outcomes.setdefault(fault.name, {})[side.name] = outcome = bench.meet(fault)
                print(f"{side.name}, {fault.name}: {outcome.in_words(fault)}", file=sys.stderr, flush=True)
    text = table(faults, outcomes)
    print(text)
    if options.document is not None:
        write_between(options.document, MARKERS, text)
        kept = {name: {side: asdict(one) for side, one in named.items()} for name, named in outcomes.items()}
        report = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
        options.document.with_suffix(".json").write_text(report, encoding="utf-8")
    return 0


def read_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", choices=[fault.name for fault in FAULTS], help="only this fault")
    parser.add_argument("--document", type=Path, help="page that gets the table between its markers")
    return parser.parse_args()


class Bench:
    """One side with its inputs and its run without a fault."""

    def __init__(self, side: Side, work: Path) -> None:
        """Make the inputs, and run without a fault.

        Raises:
            RuntimeError: not even that works.
        """
        self.side, self.work = side, work
        self.count = 0
        work.mkdir()
        self.logs = work / "logs"
        self.logs.mkdir()
        self.clean = self._inputs("clean")
        ended = self._train(self.clean, work / "whole", resume=False)
        weights = side.weights(work / "whole")
        if ended.code or weights is None:
            raise RuntimeError(f"{side.name} does not train even without a fault:\n{ended.text}")
        self.weights = weights
        self._train(self.clean, work / "control", resume=False, fault=lambda: side.in_step(KILLED_STEP, kill))
        resumed = self._train(self.clean, work / "control", resume=True)
        self.usual = {_plain(line) for text in (ended.text, resumed.text) for line in text.splitlines()}

    def meet(self, fault: Fault) -> Outcome:
        """Run with a fault, resume where the run did not end well, and say what came of it."""
        self.count += 1
        run = self.work / f"run-{self.count}"
        inputs = self._inputs(f"inputs-{self.count}")
        if fault.before is not None:
            fault.before(inputs)
        strike = fault.in_first
        first = self._train(
            inputs, run, resume=False, fault=None if strike is None else lambda: strike(self.side, inputs)
        )
        resumed = None
        if fault.between is not None:
            fault.between(self.side, run, inputs)
        if fault.before is None and self.side.weights(run) is None:
            resumed = self._train(inputs, run, resume=True)
        told = first.text + (resumed.text if resumed else "") if fault.first_code_is_told else (resumed or first).text
        found = re.findall(r"resumed after step (\d+) of", resumed.text if resumed else "")
        said = [line for line in told.splitlines() if _plain(line) not in self.usual and not _LOGGED.search(line)]
        return Outcome(
            first.code,
            None if resumed is None else resumed.code,
            int(found[0]) if found else None,
            self._compare(run),
            [_without_paths(line.strip(), self.work) for line in said],
            re.search(r"loss\W+(nan|inf)", told, re.IGNORECASE) is not None,
        )

    def _compare(self, run: Path) -> str:
        weights = self.side.weights(run)
        if weights is None:
            return "none"
        if not all(np.isfinite(tensor).all() for tensor in weights.values()):
            return "NaN"
        same = all(np.array_equal(weights[name], tensor) for name, tensor in self.weights.items())
        return "same" if same else "other"

    def _inputs(self, name: str) -> Inputs:
        folder = self.work / name
        if name == "clean":
            folder.mkdir()
            in_child(lambda: make_inputs(folder), self.logs / "inputs")
        else:
            shutil.copytree(self.work / "clean", folder)
        return inputs_in(folder)

    def _train(self, inputs: Inputs, run: Path, *, resume: bool, fault: Callable[[], None] | None = None) -> Ended:
        def act() -> int:
            if fault is not None:
                fault()
            return self.side.train(inputs, run, resume)

        return in_child(act, self.logs / "run")


def _killed(side: Side, inputs: Inputs) -> None:
    side.in_step(KILLED_STEP, kill)


def _damage(change: Callable[[Side, Path], None]) -> dict[str, Any]:
    """A run that is killed in step 8, and whose newest checkpoint is then changed."""
    return {"in_first": _killed, "between": lambda side, run, inputs: change(side, side.folder(run, NEWEST))}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def _zero_tail(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: -len(data) // 4] + bytes(len(data) - len(data[: -len(data) // 4])))


def _drop_tensor(path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = dict(load_file(path))
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})


def _edit_row(inputs: Inputs) -> None:
    lines = inputs.rows.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[40] = json.dumps({"text": "Another text than the one before."}) + "\n"
    inputs.rows.write_text("".join(lines), encoding="utf-8")


def _junk(side: Side, run: Path, inputs: Inputs) -> None:
    side.folder(run, 999).mkdir()


WEIGHTS = "model.safetensors"
FAULTS = (
    Fault("none: killed between two saves", in_first=_killed),
    Fault(
        "weights cut in half", **_damage(lambda _, at: os.truncate(at / WEIGHTS, (at / WEIGHTS).stat().st_size // 2))
    ),
    Fault("a flipped byte in the weights", **_damage(lambda _, at: _flip(at / WEIGHTS))),
    Fault("the weights' last quarter zeroed", **_damage(lambda _, at: _zero_tail(at / WEIGHTS))),
    Fault("a tensor missing from the weights", **_damage(lambda _, at: _drop_tensor(at / WEIGHTS))),
    Fault("a flipped byte in the optimizer's state", **_damage(lambda side, at: _flip(at / side.optimizer))),
    Fault("the optimizer's file missing", **_damage(lambda side, at: (at / side.optimizer).unlink())),
    Fault("the random states' file missing", **_damage(lambda side, at: (at / side.rng).unlink())),
    Fault("an empty folder with a higher step's name", in_first=_killed, between=_junk),
    Fault(
        "killed inside a save",
        in_first=lambda side, inputs: side.in_step(KILLED_STEP, lambda: limit_files(deadly=True)),
    ),
    Fault(
        "the disk full in a save",
        in_first=lambda side, inputs: side.in_step(KILLED_STEP, lambda: limit_files(deadly=False)),
        first_code_is_told=True,
    ),
    Fault(
        "SIGTERM in a step",
        in_first=lambda side, inputs: side.in_step(KILLED_STEP, terminate),
        first_code_is_told=True,
    ),
    Fault("a row edited before the resume", in_first=_killed, between=lambda side, run, inputs: _edit_row(inputs)),
    Fault(
        "a row that makes the loss NaN",
        in_first=lambda side, inputs: poison_row(inputs),
        first_code_is_told=True,
        changes_the_run=True,
    ),
    Fault("NaN in one weight of the model", before=lambda inputs: put_nan_into(inputs.model), first_code_is_told=True),
)


def table(faults: list[Fault], outcomes: dict[str, dict[str, Outcome]]) -> str:
    """The outcomes as a page's table, with the versions that it is true of."""
    names = ", ".join(f"{name} {version(name)}" for name in ("transformers", "accelerate", "torch", "safetensors"))
    lines = [f"| fault | {' | '.join(f'{side.name} makes of it' for side in SIDES)} |", "|---|---|---|"]
    for fault in faults:
        cells = [outcomes[fault.name][side.name].in_words(fault) for side in SIDES]
        lines.append(f"| {fault.name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"With {names}; {STEPS} steps, a checkpoint every third."])


def _code(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"code {code}"


def _plain(line: str) -> str:
    """A line without its figures and paths, which differ from run to run."""
    return re.sub(r"/\S+|\d[\d.,e+-]*", "#", line.strip())


def _without_paths(line: str, work: Path) -> str:
    return re.sub(rf"{re.escape(str(work))}/\S*?([^/\s]+)(?=[\s:;,]|$)", r"\1", line)


def _said(lines: list[str]) -> str:
    """The last line that counts; a traceback's is its error."""
    if not lines:
        return "Says nothing"
    errors = [line for line in lines if re.match(r"[\w.]*Error\b|[\w.]*Exception\b|burnish: |error: ", line)]
    words = re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1…", (errors or lines)[-1]).replace("|", "\\|")
    return f"Says “{words[:160]}{'…' if len(words) > 160 else ''}”"


if __name__ == "__main__":
    sys.exit(main())

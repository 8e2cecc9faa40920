"""A run loads what it uses: no peft without an adapter, no library of data sets for a local file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json, sys
from burnish.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
unused = [name for name in ("peft", "datasets", "sklearn", "scipy") if name in sys.modules]
print("LOADED " + json.dumps([code, unused]))
"""


def _run(folder: Path, *words: str) -> list:
    command = [sys.executable, "-c", PROGRAM, "dpo", "--output_dir", str(folder / "run"), "--max_steps", "2"]
    command += ["--num_samples", "0", "--save_strategy", "steps", "--save_steps", "1"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=False, timeout=600)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LOADED ")] or [done.stderr]
    return json.loads(line.removeprefix("LOADED "))


def test_a_run_of_all_weights_loads_neither_peft_nor_a_library_of_data_sets(tmp_path: Path) -> None:
    from burnish.demo import demo_paths

    paths = demo_paths()
    words = ["--model_name_or_path", str(paths.model), "--dataset_name", str(paths.data), "--max_train_samples", "32"]
    assert _run(tmp_path, *words) == [0, []]

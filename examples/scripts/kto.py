"""KTO on completions with a label, the familiar script.

    python examples/scripts/kto.py

trains Qwen/Qwen2-0.5B-Instruct on trl-lib/kto-mix-14k. Every flag of `burnish kto` works, for example

    python examples/scripts/kto.py --dataset_name ./rows.jsonl --learning_rate 5e-7 --beta 0.2
"""

import sys

from burnish.cli.main import main

JOB = [
    *("--model_name_or_path", "Qwen/Qwen2-0.5B-Instruct"),
    *("--dataset_name", "trl-lib/kto-mix-14k"),
]

if __name__ == "__main__":
    sys.exit(main(["kto", *JOB, *sys.argv[1:]]))

"""Supervised fine-tuning, the familiar script.

    python examples/scripts/sft.py

trains Qwen/Qwen2-0.5B-Instruct on trl-lib/Capybara. Every flag of `burnish sft` works, for example

    python examples/scripts/sft.py --dataset_name ./rows.jsonl --learning_rate 1e-5 --packing
"""

import sys

from burnish.cli.main import main

JOB = [
    *("--model_name_or_path", "Qwen/Qwen2-0.5B-Instruct"),
    *("--dataset_name", "trl-lib/Capybara"),
]

if __name__ == "__main__":
    sys.exit(main(["sft", *JOB, *sys.argv[1:]]))

"""A reward model, the familiar script.

    python examples/scripts/reward.py

trains Qwen/Qwen2-0.5B-Instruct on trl-lib/ultrafeedback_binarized. Every flag of `burnish reward` works, for example

    python examples/scripts/reward.py --dataset_name ./rows.jsonl --learning_rate 1e-5 --center_rewards_coefficient 0.01
"""

import sys

from burnish.cli.main import main

JOB = [
    *("--model_name_or_path", "Qwen/Qwen2-0.5B-Instruct"),
    *("--dataset_name", "trl-lib/ultrafeedback_binarized"),
]

if __name__ == "__main__":
    sys.exit(main(["reward", *JOB, *sys.argv[1:]]))

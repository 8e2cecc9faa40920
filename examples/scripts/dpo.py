"""DPO, the familiar script: run bare, it is the reference job.

    python examples/scripts/dpo.py

trains Qwen/Qwen2-0.5B-Instruct on trl-lib/ultrafeedback_binarized. Every flag of `burnish dpo` works, for example

    python examples/scripts/dpo.py --model_name_or_path ./my-model --dataset_name ./pairs.jsonl --learning_rate 5e-6
"""

import sys

from burnish.cli.main import main

REFERENCE_JOB = [
    *("--model_name_or_path", "Qwen/Qwen2-0.5B-Instruct"),
    *("--dataset_name", "trl-lib/ultrafeedback_binarized"),
]

if __name__ == "__main__":
    sys.exit(main(["dpo", *REFERENCE_JOB, *sys.argv[1:]]))

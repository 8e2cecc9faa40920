"""The benchmark's models: the real SmolLM2-135M-Instruct, and Qwen2-0.5B's shape with few layers and random weights.

python bench_models.py TOKENIZER_FOLDER TARGET    # makes the second, with the tokenizer of the first folder
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FETCH = Path(__file__).parents[2] / "shared" / "tools" / "fetch_smollm2.py"
LAYERS = 4


def smollm2_folder() -> Path:
    """Return where SmolLM2 is kept: $BURNISH_TEST_MODELS, else ~/.cache/burnish/test-models."""
    base = os.environ.get("BURNISH_TEST_MODELS")
    return (Path(base) if base else Path.home() / ".cache" / "burnish" / "test-models") / "smollm2"


def fetch_smollm2() -> Path:
    """Return SmolLM2's folder, fetched where it is absent.

    Raises:
        SystemExit: it can't be fetched.
    """
    folder = smollm2_folder()
    if (folder / "model.safetensors").exists():
        return folder
    if not FETCH.exists():
        sys.exit(f"{folder} holds no model, and {FETCH} is not there to fetch it: give a folder with --model")
    subprocess.run([sys.executable, str(FETCH), str(folder)], check=True)
    return folder


def build_large_vocabulary(tokenizer: Path, target: Path) -> None:
    """Write a model of Qwen2-0.5B's widths and vocabulary (151,936), LAYERS deep, with seeded random weights."""
    import torch
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=LAYERS,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        max_position_embeddings=32_768,
        max_window_layers=LAYERS,
    )
    Qwen2ForCausalLM(config).save_pretrained(target)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(target)


if __name__ == "__main__":
    build_large_vocabulary(Path(sys.argv[1]), Path(sys.argv[2]))

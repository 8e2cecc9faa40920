"""`--eos_token`: texts end with it, the finished model stops at it, and other names are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GenerationConfig

from burnish import SFTConfig
from burnish.data.prepare import prepare_groups
from burnish.data.sources import rows_of
from burnish.demo import demo_paths
from burnish.methods.opening import Inputs, find_tokenizer
from jobs import stage_job
from runs import run_burnish

END = "<|im_start|>"
"""A token of the embedded model that ends nothing by itself."""
ROWS: dict[str, dict[str, Any]] = {
    "sft": {"prompt": "One and one is", "completion": " two."},
    "reward": {"prompt": "One and one is", "chosen": " two.", "rejected": " three, I think."},
}


def _run(method: str, folder: Path, *words: Any, expect: int = 0) -> Path:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(ROWS[method]) + "\n" for _ in range(8)))
    job = stage_job(method, data, folder / "run", "--model_name_or_path", demo_paths().model, "--max_steps", 1)
    run_burnish(*job, *words, expect=expect)
    return folder / "run"


@pytest.mark.parametrize("method", ROWS)
def test_the_finished_model_has_it(method: str, tmp_path: Path) -> None:
    words = ["--eos_token", END, "--save_strategy", "steps", "--save_steps", 1]
    run = _run(method, tmp_path, *words)
    run_burnish("export", run, tmp_path / "exported")
    tokenizer: Any = AutoTokenizer.from_pretrained(demo_paths().model)
    before = GenerationConfig.from_pretrained(demo_paths().model).eos_token_id
    for folder in (run / "model", tmp_path / "exported"):
        assert AutoTokenizer.from_pretrained(folder).eos_token == END
        if method == "sft":
            ends: Any = GenerationConfig.from_pretrained(folder).eos_token_id
            assert ends[0] == tokenizer.convert_tokens_to_ids(END)
            assert set(ends) > {before} if isinstance(before, int) else set(ends) > set(before or ())


def test_a_merged_adapter_stops_where_it_was_trained_to(tmp_path: Path) -> None:
    run = _run("sft", tmp_path, "--eos_token", END, "--use_peft", "--lora_target_modules", "all-linear")
    run_burnish("merge", run, tmp_path / "merged")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "merged")
    ends: Any = GenerationConfig.from_pretrained(tmp_path / "merged").eos_token_id
    assert tokenizer.eos_token == END
    assert tokenizer.eos_token_id in ends


def test_texts_end_with_it_for_a_tokenizer_handed_over_as_well(tmp_path: Path) -> None:
    path = demo_paths().model
    for name, inputs in (("named", Inputs()), ("given", Inputs(tokenizer=AutoTokenizer.from_pretrained(path)))):
        config = SFTConfig(model_name_or_path=str(path), eos_token=END)
        tokenizer = find_tokenizer(config, inputs)
        rows = rows_of([ROWS["sft"]])
        (group,) = prepare_groups(rows, tokenizer, config, kind="sft", cache_dir=tmp_path / name).groups
        assert tokenizer.decode(group.completion_ids[0]).endswith(f"two.{END}")


def test_a_token_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run("sft", tmp_path, "--eos_token", "<none>", expect=2)
    assert "--eos_token '<none>' is not in the model's vocabulary; name one of its tokens" in capsys.readouterr().err

"""`--dry_run --devices --device_memory`: a run for devices that are not here, from a config without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import burnish
from burnish.cli.main import main
from burnish.device.pick import Device
from burnish.device.ranks import Ranks
from burnish.errors import ConfigError
from burnish.methods import default_budget
from burnish.methods.default_budget import RunShapes, default_max_tokens
from burnish.methods.dpo import DPOConfig
from burnish.methods.sft import SFTConfig
from burnish.models.paper import sketch_model
from jobs import POLICY, write_pairs

SEVEN_BILLION = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944,
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Qwen2.5-7B's config, and no weights."""
    (tmp_path / "7b").mkdir()
    (tmp_path / "7b" / "config.json").write_text(json.dumps(SEVEN_BILLION))
    return tmp_path / "7b"


def _plan(folder: Path, *words: Any) -> dict[str, str]:
    """What the command prints, by the name of the line."""
    args = ["dpo", "--model_name_or_path", folder, "--dry_run", *words]
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda text, **_: printed.append(text))
        assert main([str(word) for word in args]) == 0
    lines = [line.strip().split("  ", 1) for line in printed[-1].splitlines()[1:]]
    return {name: text.strip() for name, text in lines}


def test_seven_billion_do_not_fit_in_full_and_what_makes_them_fit_does(folder: Path) -> None:
    told = _plan(folder, "--devices", 8, "--device_memory", "64GiB")
    assert told["parameters"] == "7,615,616,512 trained of 7,615,616,512"
    assert told["verdict"].startswith("it does not fit: ")
    flags = told["fits with"].split(" (")[0].split()
    assert flags[:2] == ["--parallel", "fsdp"]
    assert _plan(folder, "--devices", 8, "--device_memory", "64GiB", *flags)["verdict"].startswith("it fits: ")


def test_devices_without_memory_say_what_each_holds_and_no_verdict(folder: Path) -> None:
    told = _plan(folder, "--devices", 8)
    assert "verdict" not in told
    assert told["memory"].endswith("a device, with micro-batches of 1,024 tokens (estimated)")


def test_too_little_for_anything_asks_for_more_devices(folder: Path) -> None:
    told = _plan(folder, "--device_memory", "24GiB")
    assert "such devices with --" in told["or on"]


def test_rows_and_adapters_are_looked_at_where_they_are_given(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.jsonl")
    told = _plan(POLICY, "--dataset_name", data, "--use_peft", "--devices", 2, "--device_memory", "1GiB")
    assert "24 rows read, 24 used" in told["rows"]
    assert int(told["rows"].rsplit("has ", 1)[1].split()[0]) < 60
    assert told["verdict"].startswith("it fits: ")
    assert "reference" not in told["memory"]


def test_it_is_for_dry_runs_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dpo", "--model_name_or_path", str(folder), "--device_memory", "64GiB"]) == 2
    assert "--dry_run" in capsys.readouterr().err
    trainer = burnish.DPOTrainer(args=DPOConfig(model_name_or_path=str(folder), devices=8))
    with pytest.raises(ConfigError, match="--dry_run"):
        trainer.train()
    with pytest.raises(ConfigError, match=r"--device_memory 64: must be an amount with its unit"):
        DPOConfig(device_memory="64")


@pytest.mark.parametrize(
    ("kind", "gib", "ranks", "parallel", "expected"),
    [
        ("cpu", 64, 1, "ddp", 1024),
        ("npu", 192, 1, "ddp", range(4_000, 8_000)),
        ("npu", 64, 8, "fsdp", range(1_000, 8_000)),
    ],
)
def test_the_default_budget_is_what_memory_has_room_for(
    kind: Any, gib: int, ranks: int, parallel: Any, expected: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven billion weights leave 64 GiB nothing like 512 tokens a GiB."""
    config = DPOConfig(model_name_or_path=str(folder), parallel=parallel)
    monkeypatch.setattr(default_budget, "total_memory_bytes", lambda _: gib * 2**30)
    monkeypatch.setattr(Ranks, "gather", lambda self, value: [value] * self.size)
    shapes = RunShapes(sketch_model(folder, config), 512, torch.bfloat16, has_frozen_reference=False)
    found = default_max_tokens(config, Device(kind, None, ""), shapes, Ranks(size=ranks))  # pyright: ignore[reportArgumentType]
    assert found == expected if isinstance(expected, int) else found in expected


def test_a_method_without_reference_has_a_default_budget_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SFTConfig(model_name_or_path=str(folder))
    monkeypatch.setattr(default_budget, "total_memory_bytes", lambda _: 192 * 2**30)
    shapes = RunShapes(sketch_model(folder, config), 512, torch.bfloat16, has_frozen_reference=False)
    assert default_max_tokens(config, Device("npu", None, ""), shapes, Ranks()) > 4_000  # pyright: ignore[reportArgumentType]


def test_where_nothing_fits_rows_go_one_by_one_and_a_line_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = DPOConfig(model_name_or_path=str(folder))
    monkeypatch.setattr(default_budget, "total_memory_bytes", lambda _: 64 * 2**30)
    shapes = RunShapes(sketch_model(folder, config), 700, torch.bfloat16, has_frozen_reference=True)
    assert default_max_tokens(config, Device("npu", None, ""), shapes, Ranks()) == 700  # pyright: ignore[reportArgumentType]
    assert "--dry_run --devices 1 --device_memory 64GiB looks for settings that fit" in capsys.readouterr().err


def test_zero_is_counted_as_it_spreads_and_slices_take_its_place(folder: Path, tmp_path: Path) -> None:
    told = {}
    for stage in (1, 2):
        file = tmp_path / f"{stage}.json"
        file.write_text(json.dumps({"zero_optimization": {"stage": stage, "reduce_bucket_size": 5 * 10**8}}))
        told[stage] = _plan(folder, "--devices", 8, "--device_memory", "64GiB", "--deepspeed", file)
        assert told[stage]["parallel"] == f"DeepSpeed ZeRO-{stage}, 8 devices"
    # A share of 28.37 GiB of weights is 3.55; ZeRO moves one of the weights and two of the moments.
    assert "gradients 28.37 GiB, optimizer 10.64 GiB" in told[1]["memory"]
    assert "gradients 3.55 GiB, optimizer 10.64 GiB" in told[2]["memory"]
    assert "gathered 1.86 GiB" in told[1]["memory"]
    assert told[1]["fits with"].startswith("--parallel fsdp without --deepspeed --max_tokens_per_micro_batch")
    assert _plan(folder, "--devices", 1, "--deepspeed", tmp_path / "1.json")["parallel"] == "one device"

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from burnish.models.card import model_card, versions


def front_matter(card: str) -> dict[str, Any]:
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


def test_the_front_matter_is_what_hubs_read() -> None:
    card = model_card(
        base_model="Qwen/Qwen2-0.5B-Instruct", method="dpo", data={"dataset": "trl-lib/ultrafeedback_binarized"}
    )
    assert front_matter(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "Qwen/Qwen2-0.5B-Instruct",
        "datasets": ["trl-lib/ultrafeedback_binarized"],
        "tags": ["burnish", "dpo"],
    }
    assert "# Qwen2-0.5B-Instruct + dpo" in card


def test_an_adapter_is_said_to_be_one() -> None:
    card = model_card(base_model="a/b", method="dpo", adapter=True)
    assert front_matter(card)["library_name"] == "peft"
    assert "AutoPeftModelForCausalLM" in card


def test_data_settings_metrics_and_versions_are_tables() -> None:
    card = model_card(
        base_model="a/b",
        method="dpo",
        data={"groups": 2099, "cut": {"rows": 3}},
        settings={"beta": 0.1, "loss_type": ["sigmoid", "sft"], "bf16": True, "max_steps": None},
        metrics={"eval_loss": 0.612345678},
    )
    for line in (
        "| groups | 2099 |",
        "| cut | rows: 3 |",
        "| beta | 0.1 |",
        "| loss_type | sigmoid, sft |",
        "| bf16 | true |",
        "| eval_loss | 0.612346 |",
        f"| torch | {versions()['torch']} |",
    ):
        assert line in card
    assert "max_steps" not in card


def test_no_path_of_this_machine_is_told(tmp_path: Path) -> None:
    base = tmp_path / "my-base"
    base.mkdir()
    card = model_card(
        base_model=str(base),
        method="dpo",
        data={"dataset": f"{tmp_path}/pairs.jsonl"},
        settings={"output_dir": "./runs/private/one", "files": [f"{tmp_path}/a.txt"], "home": "~/secret/place"},
    )
    assert str(tmp_path) not in card
    assert "private" not in card
    assert "secret" not in card
    assert front_matter(card)["base_model"] == "my-base"
    assert front_matter(card)["datasets"] == ["pairs.jsonl"]


@pytest.mark.parametrize("value", ["a | b", "two\nlines", "<script>alert(1)</script>", "x: {y"])
def test_odd_values_break_neither_table_nor_front_matter(value: str) -> None:
    card = model_card(base_model="a/b", method="dpo", data={"dataset": value}, settings={"run_name": value})
    front_matter(card)
    rows = [line for line in card.splitlines() if line.startswith("| run_name")]
    assert len(rows) == 1
    assert rows[0].replace("\\|", "").count("|") == 3
    assert "<script>" not in card.split("---\n", 2)[2]

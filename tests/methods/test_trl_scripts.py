"""A script written for TRL runs with `from burnish import` in place of `from trl import`, or is refused by name."""

from __future__ import annotations

import json
import os
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from transformers import TrainerCallback

import burnish
from burnish import (
    DatasetMixtureConfig,
    DPOConfig,
    DPOTrainer,
    KTOConfig,
    KTOTrainer,
    ModelConfig,
    RewardConfig,
    RewardTrainer,
    ScriptArguments,
    SFTConfig,
    SFTTrainer,
    TrlParser,
    get_dataset,
    get_peft_config,
    get_quantization_config,
)
from burnish.cli.methods import TRAINING, config_type_of
from burnish.errors import ConfigError
from jobs import POLICY, write_completions, write_pairs
from runs import read_metrics

GOLDEN = Path(__file__).parents[1] / "golden"

SCRIPT = """
from datasets import load_dataset

from burnish import {name}Config, {name}Trainer, ModelConfig, ScriptArguments, TrlParser
from burnish import DatasetMixtureConfig, get_dataset, get_peft_config, get_quantization_config

if __name__ == "__main__":
    parser = TrlParser((ScriptArguments, {name}Config, ModelConfig, DatasetMixtureConfig), prog="train")
    rows_of, training, model, mixture = parser.parse_args_and_config(fail_with_unknown_args=False)
    arguments = dict(revision=model.model_revision, trust_remote_code=training.trust_remote_code)
    arguments |= dict(attn_implementation=model.attn_implementation, dtype=model.dtype)
    training.model_init_kwargs = arguments | (training.model_init_kwargs or {{}})
    rows = get_dataset(mixture) if mixture.datasets else load_dataset(
        "json", data_files={{"train": rows_of.dataset_name}}, streaming=rows_of.dataset_streaming
    )
    trainer = {name}Trainer(
        model=model.model_name_or_path,
        args=training,
        train_dataset=rows[rows_of.dataset_train_split],
        eval_dataset=rows[rows_of.dataset_test_split] if training.eval_strategy != "no" else None,
        quantization_config=get_quantization_config(model),
        peft_config=get_peft_config(model),
    )
    trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.accelerator.print("trained")
    trainer.save_model(training.output_dir)
    if training.push_to_hub:
        trainer.push_to_hub(dataset_name=rows_of.dataset_name)
    trainer.end()
"""
"""What TRL's own scripts do, call for call."""


def _rows(folder: Path, method: str) -> Path:
    write = write_completions if method == "sft" else write_pairs
    return write(folder / "rows.jsonl", count=16)


@pytest.mark.parametrize("method", list(TRAINING))
def test_trls_own_script_runs_with_its_imports_changed(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(name=TRAINING[method]))
    flags = {
        "model_name_or_path": POLICY,
        "dataset_name": _rows(tmp_path, method),
        "output_dir": tmp_path / "run",
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "dtype": "float32",
        "report_to": "none",
        "num_samples": 0,
        "gradient_checkpointing": True,
    }
    words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
    words += ["--use_peft", "--lora_r", "4"] if method == "dpo" else []
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", [str(script), *words, "--no_remove_unused_columns"])
    runpy.run_path(str(script), run_name="__main__")
    assert [record["step"] for record in read_metrics(tmp_path / "run") if record["kind"] == "train"] == [1, 2]
    name = "adapter_model" if method == "dpo" else "model"
    assert (tmp_path / "run" / f"{name}.safetensors").exists()
    assert "trained" in capsys.readouterr().out


@dataclass
class Mine:
    """A user's own arguments."""

    name: str
    sizes: tuple[int, ...] = (1, 2)
    is_fast: bool = False


def test_a_flag_reaches_every_dataclass_that_has_it_and_your_own_beside_them() -> None:
    words = ["--dataset_name", "D", "--name", "N", "--no_is_fast", "--bf16", "--lora_r", "8", "--use_peft"]
    parser = TrlParser((ScriptArguments, DPOConfig, ModelConfig, Mine))
    script, config, model, mine = parser.parse_args_and_config(words)
    assert (script.dataset_name, config.dataset_name, config.precision) == ("D", "D", "bf16")
    assert (config.lora_r, model.lora_r, model.use_peft) == (8, 8, True)
    assert (mine.name, mine.is_fast) == ("N", False)


def test_flags_win_over_the_file_and_its_variables_are_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OF_A_SCRIPT", raising=False)
    path = tmp_path / "run.yaml"
    path.write_text("env:\n  OF_A_SCRIPT: 7\nlearning_rate: 1.0e-5\nbeta: 0.3\nnum_machines: 1\n")
    config, _ = TrlParser((DPOConfig, ModelConfig)).parse_args_and_config(["--config", str(path), "--beta", "0.2"])
    assert (config.learning_rate, config.beta, config.eval_strategy) == (1e-5, 0.2, "no")
    assert os.environ.pop("OF_A_SCRIPT") == "7"


def test_unknown_keys_of_a_file_are_told_or_given_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("beta: 0.3\nmy_key: 1\n")
    parser = TrlParser(DPOConfig)
    with pytest.raises(ConfigError, match="my_key: there is no such setting"):
        parser.parse_args_and_config(["--config", str(path)])
    parser.parse_args_and_config(["--config", str(path)], fail_with_unknown_args=False)
    assert "my_key: not a setting of this script; left out" in capsys.readouterr().err
    words = ["--config", str(path), "--your_key", "2"]
    assert parser.parse_args_and_config(words, return_remaining_strings=True)[1] == [
        "--my_key", "1", "--your_key", "2"
    ]  # fmt: skip
    apart = parser.parse_args_and_config(words, return_remaining_strings=True, separate_remaining_strings=True)
    assert apart[1:] == (["--my_key", "1"], ["--your_key", "2"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--learnin_rate", "1"], "did you mean learning_rate?"),
        (["--load_in_4bit"], "train a LoRA adapter over full weights"),
        (["--datasets", "a"], "put the files into one folder"),
        (["--beta", "x"], "must be a number"),
        ([], "--name is missing: Mine has no default for it"),
    ],
)
def test_a_script_refuses_as_the_command_does(words: list[str], says: str) -> None:
    given = words if not words else [*words, "--name", "N"]
    with pytest.raises(ConfigError) as caught:
        TrlParser((ScriptArguments, DPOConfig, ModelConfig, Mine)).parse_args_and_config(given)
    assert says in str(caught.value)


def test_only_a_flag_may_trust_a_strangers_code(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("trust_remote_code: true\n")
    with pytest.raises(ConfigError, match="give the flag --trust_remote_code"):
        TrlParser((DPOConfig, ModelConfig)).parse_args_and_config(["--config", str(path)])
    config, model = TrlParser((DPOConfig, ModelConfig)).parse_args_and_config(["--trust_remote_code"])
    assert (config.trust_remote_code, model.trust_remote_code) == (True, True)


def test_an_error_ends_the_script_as_it_ends_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["folder/train.py", "--beta", "-1"])
    with pytest.raises(SystemExit) as ended:
        TrlParser(DPOConfig).parse_args_and_config()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("train.py: --beta ")


def test_help_lists_the_settings_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        TrlParser((ScriptArguments, DPOConfig)).parse_args_and_config(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "--dataset_test_split" in told
    assert "--label_smoothing" in told


def test_the_arguments_of_a_script_become_an_adapters_configuration() -> None:
    assert get_peft_config(ModelConfig()) is None
    adapter = get_peft_config(ModelConfig(use_peft=True, lora_r=8, lora_alpha=4, lora_target_modules=["q_proj"]))
    assert adapter is not None
    assert (adapter.r, adapter.lora_alpha, adapter.lora_dropout) == (8, 4, 0.0)
    assert adapter.target_modules == {"q_proj"}
    assert get_quantization_config(ModelConfig()) is None


@pytest.mark.parametrize(
    "ask",
    [
        lambda: ModelConfig(load_in_4bit=True),
        lambda: ModelConfig(bnb_4bit_quant_storage="uint8"),
        lambda: DatasetMixtureConfig(datasets=["a"]),
        lambda: ScriptArguments(dataset_streaming=True),
        lambda: get_dataset(DatasetMixtureConfig()),
    ],
)
def test_what_is_not_supported_is_refused_by_name_with_a_cure(ask: Any) -> None:
    with pytest.raises(ConfigError, match=r"is not supported[;:] .{20,}"):
        ask()


@pytest.mark.parametrize("name", sorted(burnish._INSTEAD))
def test_an_import_that_is_not_there_says_what_to_use(name: str) -> None:
    with pytest.raises(ImportError, match=f"burnish has no {name}; use .+"):
        exec(f"from burnish import {name}")


@pytest.mark.parametrize("method", list(TRAINING))
def test_every_setting_of_trl_can_be_read_or_its_name_here_is_told(method: str) -> None:
    config = config_type_of(method)()
    for name in json.loads((GOLDEN / f"trl_{method}_flags.json").read_text())["flags"]:
        try:
            getattr(config, name)
        except AttributeError as error:
            found = str(error).split("; it is ")[1].removesuffix(" here")
            assert hasattr(config, found.split(", ")[0]), name


def test_a_name_of_trls_can_be_set_and_means_what_the_call_means() -> None:
    config: Any = DPOConfig()
    config.model_init_kwargs = {"dtype": "bfloat16", "revision": "v1", "attn_implementation": None}
    assert (config.precision, config.model_revision, config.model_init_kwargs) == ("bf16", "v1", None)
    config.gradient_checkpointing_kwargs = {"use_reentrant": False}
    with pytest.raises(ConfigError, match="load_in_4bit=True"):
        config.load_in_4bit = True
    with pytest.raises(ConfigError, match="did you mean learning_rate"):
        config.learnin_rate = 1e-5


def test_arguments_stand_where_trl_has_them() -> None:
    rows, words = [{"text": "a"}], [{"text": "b"}]
    for trainer_type, config_type in ((SFTTrainer, SFTConfig), (RewardTrainer, RewardConfig)):
        trainer = trainer_type("policy", config_type(seed=7), None, rows, words)
        assert (trainer.args.model_name_or_path, trainer.args.seed) == ("policy", 7)
        assert (trainer.inputs.train_dataset, trainer.inputs.eval_dataset) == (rows, words)
    for trainer_type, config_type in ((DPOTrainer, DPOConfig), (KTOTrainer, KTOConfig)):
        trainer = trainer_type("policy", "reference", config_type(seed=7), None, rows, words)
        assert (trainer.args.model_name_or_path, trainer.args.ref_model_name_or_path) == ("policy", "reference")
        assert (trainer.inputs.train_dataset, trainer.inputs.eval_dataset) == (rows, words)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: DPOTrainer(data_collator=len), r"data_collator=…\) is not supported; rows are laid out by burnish"),
        (lambda: SFTTrainer(compute_metrics=len), "a callback sees each record"),
        (lambda: SFTTrainer(formatting_func=len), "write the column text first"),
        (lambda: DPOTrainer(optimizers=(object(), None)), "the optimizer is AdamW"),
        (lambda: DPOTrainer(beta=0.1), r"it is a setting; write args=DPOConfig\(beta=…\)"),
        (lambda: RewardTrainer(ref_model="M"), "no such argument"),
        (lambda: KTOTrainer(train_data=[]), "did you mean train_dataset?"),
        (lambda: DPOTrainer(args=SFTConfig()), "must be a DPOConfig, not a SFTConfig"),
    ],
)
def test_an_argument_that_a_trainer_does_not_take_is_refused_by_name(build: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build()


def test_arguments_that_ask_for_nothing_pass() -> None:
    asking = DPOTrainer(data_collator=None, compute_metrics=None, optimizers=(None, None), quantization_config=None)
    assert asking.args == DPOTrainer().args


class Seen(TrainerCallback):
    """Remembers the steps."""

    steps: ClassVar[list[int]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps.append(state.global_step)


def test_end_closes_the_trackers_and_lets_go_of_the_output_folder(tmp_path: Path) -> None:
    config = DPOConfig(
        model_name_or_path=str(POLICY), output_dir=str(tmp_path / "run"), max_steps=1, num_samples=0,
        report_to=["tensorboard"], reference_cache="memory",
    )  # fmt: skip
    rows = [json.loads(line) for line in write_pairs(tmp_path / "pairs.jsonl", count=16).read_text().splitlines()]
    trainer = DPOTrainer(args=config, train_dataset=rows)
    trainer.add_callback(Seen)
    trainer.train()
    with pytest.raises(ConfigError, match=r"add callbacks before train\(\)"):
        trainer.add_callback(Seen)
    trainer.save_state()
    trainer.end()
    assert Seen.steps == [1]
    assert trainer.accelerator.trackers == []
    assert json.loads((tmp_path / "run" / "trainer_state.json").read_text())["max_steps"] == 1
    again = DPOTrainer(args=DPOConfig(**{**vars(config), "overwrite": True}), train_dataset=rows)
    again.open_run_dir(None)  # raises where the folder is still held
    again.close()

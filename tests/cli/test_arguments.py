"""From a command line and YAML files to settings: what is read, how it is layered, and what an error says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from burnish.cli.arguments import Parsed, parse_arguments
from burnish.errors import ConfigError
from burnish.methods.dpo import DPOConfig


def parse(*argv: str) -> Parsed[DPOConfig]:
    return parse_arguments(list(argv), DPOConfig)


def settings(*argv: str) -> dict[str, object]:
    parsed = parse(*argv)
    return {name: getattr(parsed.config, name) for name in parsed.given}


def message(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(*argv)
    text = str(caught.value)
    assert "\n" not in text
    return text


def yaml_file(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_nothing_given_gives_the_defaults():
    parsed = parse()
    assert parsed.config == DPOConfig()
    assert (parsed.given, parsed.notes, parsed.environment) == (set(), [], {})


@pytest.mark.parametrize(
    "words",
    [
        ["--learning_rate", "5e-6"],
        ["--learning-rate", "5.0e-6"],
        ["--learning_rate=5e-6"],
        ["--learning-rate=0.000005"],
    ],
)
def test_a_flag_is_read_in_every_spelling(words: list[str]):
    assert settings(*words) == {"learning_rate": 5e-6}


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--use_peft"], True),
        (["--use_peft", "True"], True),
        (["--use_peft", "yes"], True),
        (["--use-peft=1"], True),
        (["--use_peft", "false"], False),
        (["--use_peft", "0"], False),
        (["--no_use_peft"], False),
        (["--no-use-peft"], False),
    ],
)
def test_a_switch_is_read_in_every_way_that_trl_reads_it(words: list[str], value: bool):
    assert settings(*words) == {"use_peft": value}


def test_an_adverse_default_is_switched_off_by_no():
    assert settings("--no_disable_dropout") == {"disable_dropout": False}


@pytest.mark.parametrize(
    "words",
    [
        ["--loss_type", "sigmoid", "ipo", "--loss_weights", "1.0", "0.1"],
        ["--loss_type", "[sigmoid, ipo]", "--loss_weights", "[1.0, 0.1]"],
        ["--loss_type", '["sigmoid", "ipo"]', "--loss_weights=[1, 1e-1]"],
        ["--loss-type", "sigmoid,ipo", "--loss-weights", "1,0.1"],
    ],
)
def test_lists_are_written_with_spaces_commas_or_brackets(words: list[str]):
    assert settings(*words) == {"loss_type": ["sigmoid", "ipo"], "loss_weights": [1.0, 0.1]}


def test_a_negative_number_is_a_value():
    assert settings("--max_steps", "-1", "--seed", "3") == {"max_steps": -1, "seed": 3}


def test_the_last_of_two_equal_flags_wins():
    assert settings("--seed", "1", "--seed", "2") == {"seed": 2}


@pytest.mark.parametrize("word", ["none", "None", "null"])
def test_none_unsets_what_may_be_unset(word: str):
    assert settings("--max_length", word) == {"max_length": None}


def test_values_have_the_types_of_the_settings():
    config = parse(
        "--num_train_epochs", "2", "--logging_steps", "5", "--dataset_name", "2024", "--max_length", "77",
        "--lr_scheduler_kwargs", '{"min_lr": 1e-7}', "--lora_target_modules", "q_proj", "v_proj", "--use_peft",
    ).config  # fmt: skip
    assert [type(value) for value in (config.num_train_epochs, config.logging_steps)] == [float, float]
    assert (config.dataset_name, config.max_length) == ("2024", 77)
    assert config.lr_scheduler_kwargs == {"min_lr": 1e-7}
    assert config.lora_target_modules == ["q_proj", "v_proj"]


def test_flags_win_over_the_file(tmp_path: Path):
    path = yaml_file(tmp_path, "beta: 0.2\nmax_length: 64\nbf16: true\n")
    assert settings("--config", path, "--beta", "0.3", "--fp16") == {"beta": 0.3, "max_length": 64, "precision": "fp16"}
    assert settings("--beta", "0.3", "--config", path)["beta"] == 0.3


def test_a_later_file_wins_over_an_earlier_one(tmp_path: Path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("beta: 0.2\nseed: 1\n")
    second.write_text("beta: 0.4\n")
    assert settings("--config", str(first), "--config", str(second)) == {"beta": 0.4, "seed": 1}
    assert settings("--config", str(first), str(second)) == {"beta": 0.4, "seed": 1}


def test_a_file_means_what_people_write_in_it(tmp_path: Path):
    text = """
    eval_strategy: no          # which YAML takes for false
    learning_rate: 5e-7        # which YAML 1.1 takes for text
    lr_scheduler_kwargs: {min_lr: 1e-8}
    lr-scheduler-type: cosine_with_min_lr
    run_name: 2024
    loss_type: ipo
    report_to: none
    max_length:
    env: {ONE: 1}
    """
    parsed = parse("--config", yaml_file(tmp_path, text))
    assert {name: getattr(parsed.config, name) for name in parsed.given} == {
        "eval_strategy": "no",
        "learning_rate": 5e-7,
        "lr_scheduler_kwargs": {"min_lr": 1e-8},
        "lr_scheduler_type": "cosine_with_min_lr",
        "run_name": "2024",
        "loss_type": ["ipo"],
        "report_to": [],
        "max_length": None,
    }
    assert parsed.environment == {"ONE": "1"}
    assert "ONE" not in os.environ


def test_the_settings_that_a_run_wrote_give_the_run_again(tmp_path: Path):
    import dataclasses

    import yaml

    config = parse("--beta", "0.3", "--eval_strategy", "no", "--max_length", "none", "--report_to", "none").config
    written = dataclasses.asdict(config)
    parsed = parse("--config", yaml_file(tmp_path, yaml.safe_dump(written, sort_keys=False)))
    assert parsed.config == config
    assert parsed.notes == []


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n"])
def test_an_empty_file_asks_for_nothing(tmp_path: Path, text: str):
    assert settings("--config", yaml_file(tmp_path, text)) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("beta: 0.1\nseed: 1\nbeta: 0.2\n", "run.yaml:3: beta was set in line 1 already"),
        ("beta: 0.1\nlr_scheduler_kwargs:\n  a: 1\n  a: 2\n", "run.yaml:4: not readable as YAML: a is set twice"),
        ("- beta\n- 0.1\n", "run.yaml:1: not a list of settings"),
        ("just words\n", "run.yaml:1: not a list of settings"),
        ("seed: 1\nbeta: [0.1\n", "run.yaml:3: not readable as YAML"),
        ("beta: !!python/object:os.system x\n", "run.yaml:1: not readable as YAML"),
        ("seed: 1\n\nbta: 0.1\n", "run.yaml:3: bta: there is no such setting; did you mean beta?"),
        ("seed: x\n", "run.yaml:1: seed x: must be a whole number"),
        ("beta: [1, 2]\n", "run.yaml:1: beta takes one value"),
        ("env: 3\n", "run.yaml:1: env: must be settings"),
        ("load_in_4bit: true\n", "run.yaml:1: load_in_4bit is not supported; "),
    ],
)
def test_an_error_in_a_file_names_file_and_line(tmp_path: Path, text: str, says: str):
    assert says in message("--config", yaml_file(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    assert message("--config", str(tmp_path / "none.yaml")).endswith("none.yaml: no such file")
    assert "cannot be read" in message("--config", str(tmp_path))
    (tmp_path / "bytes.yaml").write_bytes(b"beta: \xff\xfe")
    assert "not a text file in UTF-8" in message("--config", str(tmp_path / "bytes.yaml"))
    assert "needs the path" in message("--config")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--bta", "1"], "--bta: there is no such setting; did you mean beta?"),
        (["--learning-rat", "1"], "did you mean learning_rate?"),
        (["--lr", "1"], "did you mean learning_rate?"),
        (["--evaluation_strategi", "no"], "did you mean evaluation_strategy?"),
        (["--load_in_4bits"], "did you mean load_in_4bit?"),
        (["--xyzzy", "1"], "--xyzzy: there is no such setting; `--help-all` lists all settings"),
        (["--beta", "abc"], "--beta abc: must be a number"),
        (["--beta"], "--beta needs a value: a number"),
        (["--label_smoothing", "none"], "--label_smoothing none: must be a number"),
        (["--seed", "1", "2"], "--seed takes one value; what is '2'?"),
        (["--seed", "1.5"], "--seed 1.5: must be a whole number"),
        (["--use_peft", "maybe"], "--use_peft maybe: must be true or false"),
        (["--eval_strategy", "never"], "--eval_strategy never: must be one of no, steps, epoch, or none"),
        (["--loss_weights", "a"], "--loss_weights a: must be a list of numbers"),
        (["--report_to"], "--report_to needs a value: a list of names"),
        (["--lr_scheduler_kwargs", "5"], "must be NAME=VALUE, or settings in braces"),
        (["-x", "1"], "-x: flags begin with two dashes"),
        (["model", "--beta", "1"], "'model' stands before any flag"),
        (["--no_beta"], "did you mean beta?"),
        (["--env", "A=1"], "--env: there is no such setting"),
    ],
)
def test_an_error_names_the_flag_the_value_and_what_is_allowed(words: list[str], says: str):
    assert says in message(*words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--beta -1", "--beta -1: must be > 0"),
        ("--beta 0", "--beta 0: must be > 0"),
        ("--beta .inf", "--beta inf: must be a finite number, > 0"),
        ("--beta nan", "--beta nan: must be a finite number, > 0"),
        ("--label_smoothing 0.5", "--label_smoothing 0.5: must be in [0, 0.5)"),
        ("--max_length 1", "--max_length 1: must be ≥ 2 (default 1024)"),
        ("--per_device_train_batch_size 0", "must be ≥ 1 (default 2)"),
        ("--lora_dropout 1", "must be in [0, 1)"),
        ("--logging_steps 2.5", "must be > 0, and whole from 1 on"),
        ("--loss_type sigmoid hinge --loss_weights 1", "loss_weights has 1 values for 2 objectives"),
        ("--loss_type nonsense", "loss_type 'nonsense' is unknown: "),
        ("--report_to nonsense", "--report_to nonsense: must be of tensorboard, "),
        ("--lr_scheduler_type cosin", "must be one of linear, cosine, "),
    ],
)
def test_a_value_out_of_range_names_the_range_and_the_default(words: str, says: str):
    assert says in message(*words.split())


def test_two_keys_that_contradict_each_other_are_an_error():
    assert "ask for different values of precision" in message("--bf16", "--precision", "fp32")
    assert settings("--bf16", "--precision", "bf16") == {"precision": "bf16"}


def test_adapter_settings_without_an_adapter_are_told():
    assert "no effect without --use_peft" in parse("--lora_r", "4").notes[0]
    assert parse("--lora_r", "4", "--use_peft").notes == []
    assert parse("--lora_r", "16").notes == []


def test_reading_arguments_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from burnish.cli.arguments import parse_arguments\n"
        "from burnish.cli.help import print_help\n"
        "from burnish.methods.dpo import DPOConfig\n"
        "parse_arguments(['--loss_type', 'ipo', '--report_to', 'all', '--bf16'], DPOConfig)\n"
        "print_help('dpo', DPOConfig, everything=True)\n"
        "heavy = {'torch', 'transformers', 'datasets', 'accelerate', 'numpy', 'peft'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

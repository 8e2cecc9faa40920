"""Every setting of TRL 1.16 has an answer, and TRL's own commands mean here what they mean there."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from burnish.cli.arguments import Parsed, parse_arguments
from burnish.cli.methods import TRAINING, config_type_of
from burnish.errors import ConfigError
from burnish.methods.dpo import DPOConfig
from burnish.trl_flags import ACCELERATE, FORMERS, TABLES, Answer, NotNeeded, Refused, Same, Translated

ROOT = Path(__file__).parents[2]
METHODS = list(TRAINING)
TRL: dict[str, dict[str, dict[str, Any]]] = {
    method: json.loads((ROOT / f"tests/golden/trl_{method}_flags.json").read_text())["flags"] for method in METHODS
}
OURS = {
    method: {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(config_type_of(method))
    }
    for method in METHODS
}
of_every_method = pytest.mark.parametrize("method", METHODS)


def parse(*argv: str, method: str = "dpo") -> Parsed[Any]:
    return parse_arguments(list(argv), config_type_of(method))


def settings(*argv: str, method: str = "dpo") -> dict[str, Any]:
    parsed = parse(*argv, method=method)
    return {name: getattr(parsed.config, name) for name in parsed.given}


def answers(kind: type, method: str) -> list[tuple[str, Any]]:
    return [(name, answer) for name, answer in TABLES[method].items() if isinstance(answer, kind)]


def written(default: Any) -> list[str]:
    """A default of TRL's as a user would type it."""
    if isinstance(default, list):
        return [str(part) for part in default] or ["[]"]
    return [str(default)]


def is_ours(name: str, answer: Answer | None, method: str) -> bool:
    return name in OURS[method] and (answer is None or isinstance(answer, Same))


def test_the_lists_are_those_of_trl():
    assert {method: len(flags) for method, flags in TRL.items()} == {"dpo": 167, "kto": 159, "sft": 163, "reward": 153}
    assert {"beta", "loss_type", "bf16", "lora_r", "datasets", "dataset_streaming"} <= set(TRL["dpo"])
    assert {"desirable_weight", "packing_strategy", "center_rewards_coefficient"} <= {
        *TRL["kto"], *TRL["sft"], *TRL["reward"]
    }  # fmt: skip


@of_every_method
def test_every_setting_of_trl_has_exactly_one_answer(method: str):
    for name in TRL[method]:
        answer = TABLES[method].get(name)
        refused_or_read = isinstance(answer, Refused) or (
            name not in OURS[method] and isinstance(answer, Translated | NotNeeded)
        )
        assert is_ours(name, answer, method) != refused_or_read, name


@of_every_method
def test_the_table_speaks_of_no_setting_that_nobody_has(method: str):
    assert set(TABLES[method]) - set(FORMERS[method]) - set(ACCELERATE) <= set(TRL[method]) | {"truncation_mode"}
    former = {name for name, answer in FORMERS[method].items() if not isinstance(answer, Same)}
    assert not (former | set(ACCELERATE)) & (set(TRL[method]) | set(OURS[method]))


@of_every_method
def test_translations_lead_to_settings_that_there_are(method: str):
    for name, answer in answers(Translated, method):
        assert set(answer.to.split(", ")) <= set(OURS[method]), name


@of_every_method
def test_what_is_the_same_is_a_setting_of_ours(method: str):
    assert [name for name, _ in answers(Same, method) if name not in OURS[method]] == []


@of_every_method
def test_every_note_is_in_both_languages(method: str):
    for name, answer in TABLES[method].items():
        english = next(getattr(answer, key) for key in ("note", "why", "instead") if hasattr(answer, key))
        assert bool(english) == bool(answer.zh), name
        assert answer.zh == "" or any("\u4e00" <= letter <= "\u9fff" for letter in answer.zh) or "sigmoid" in answer.zh


@of_every_method
def test_every_default_that_differs_from_trls_says_why(method: str):
    ours, trl = OURS[method], TRL[method]
    differing = [name for name in trl if name in ours and ours[name] != trl[name]["default"]]
    assert [name for name in differing if not isinstance(TABLES[method].get(name), Same | Refused)] == []


@of_every_method
def test_trls_own_defaults_are_accepted(method: str):
    for name, flag in TRL[method].items():
        if flag["default"] not in (None, ""):  # these cannot be typed
            assert parse(f"--{name}", *written(flag["default"]), method=method).config is not None, name


@of_every_method
def test_what_is_not_needed_gets_one_line(method: str):
    for name, _ in answers(NotNeeded, method):
        parsed = parse(f"--{name}", "1", method=method)
        assert parsed.config == config_type_of(method)()
        assert len(parsed.notes) == 1
        assert parsed.notes[0].startswith(f"--{name}: not needed; ")


@of_every_method
def test_what_is_refused_is_refused_by_name_with_a_cure(method: str):
    for name, _ in answers(Refused, method):
        with pytest.raises(ConfigError, match=rf"^--{name} something is not supported; .+"):
            parse(f"--{name}", "something", method=method)


@of_every_method
def test_a_refusal_names_no_setting_that_the_command_lacks(method: str):
    for name, answer in answers(Refused, method):
        for named in re.findall(r"--(\w+)", answer.instead):
            assert named in OURS[method] or named == "num_processes", (name, named)


@of_every_method
def test_what_is_refused_passes_in_silence_when_it_asks_for_nothing(method: str):
    for name, answer in answers(Refused, method):
        for value in answer.harmless:
            parsed = parse(f"--{name}={value}", method=method)
            assert (parsed.config, parsed.notes) == (config_type_of(method)(), []), name


FULL = [
    ("--dataset_name", "trl-lib/ultrafeedback_binarized"), ("--model_name_or_path", "Qwen/Qwen2-0.5B-Instruct"),
    ("--learning_rate", "5.0e-7"), ("--num_train_epochs", "1"), ("--per_device_train_batch_size", "2"),
    ("--max_steps", "1000"), ("--gradient_accumulation_steps", "8"), ("--eval_strategy", "steps"),
    ("--eval_steps", "50"), ("--output_dir", "Qwen2-0.5B-DPO"), ("--no_remove_unused_columns",),
]  # fmt: skip
EXPECTED = {
    "dataset_name": "trl-lib/ultrafeedback_binarized",
    "model_name_or_path": "Qwen/Qwen2-0.5B-Instruct",
    "learning_rate": 5e-7,
    "num_train_epochs": 1.0,
    "per_device_train_batch_size": 2,
    "max_steps": 1000,
    "gradient_accumulation_steps": 8,
    "eval_strategy": "steps",
    "eval_steps": 50.0,
    "output_dir": "Qwen2-0.5B-DPO",
}


def flat(flags: list[tuple[str, ...]]) -> list[str]:
    return [word for flag in flags for word in flag]


def test_trls_command_for_full_training_resolves_as_there():
    assert settings(*flat(FULL)) == EXPECTED
    assert parse(*flat(FULL)).config == DPOConfig(**EXPECTED)
    assert parse(*flat(FULL)).notes == [
        "--no_remove_unused_columns: not needed; columns that no method reads are left alone"
    ]


def test_trls_command_for_lora_resolves_as_there():
    flags = [flag if flag[0] != "--learning_rate" else ("--learning_rate", "5.0e-6") for flag in FULL]
    argv = [*flat(flags), "--use_peft", "--lora_r", "32", "--lora_alpha", "16"]
    expected = EXPECTED | {"learning_rate": 5e-6, "use_peft": True, "lora_r": 32, "lora_alpha": 16}
    assert settings(*argv) == expected
    assert len(parse(*argv).notes) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--bf16", {"precision": "bf16"}),
        ("--bf16 True --fp16 False", {"precision": "bf16"}),
        ("--bf16 False", {"precision": "fp32"}),
        ("--bf16 False --fp16 True", {"precision": "fp16"}),
        ("--fp16 False", {}),
        ("--dtype float32", {}),
        ("--dtype bfloat16", {"precision": "bf16"}),
        ("--torch_dtype bfloat16 --bf16", {"precision": "bf16"}),
        ("--torch_dtype auto", {}),
        ("--mixed_precision no", {"precision": "fp32"}),
        ("--use_cpu", {"device": "cpu"}),
        ("--no_cuda False", {}),
        ("--evaluation_strategy no", {"eval_strategy": "no"}),
        (
            "--max_prompt_length 512 --max_completion_length 128",
            {"max_prompt_length": 512, "max_completion_length": 128},
        ),
        ("--warmup_ratio 0.1", {"warmup_steps": 0.1}),
        ("--warmup_ratio 0.1 --warmup_steps 7", {"warmup_steps": 7}),
        ("--report_to none", {"report_to": []}),
        ("--report_to tensorboard,wandb", {"report_to": ["tensorboard", "wandb"]}),
        ("--activation_checkpointing", {"gradient_checkpointing": True}),
        ("--no_gradient_checkpointing", {"gradient_checkpointing": False}),
        ("--full_determinism", {"deterministic": True}),
        ("--resume_from_checkpoint True", {"resume_from_checkpoint": "auto"}),
        ("--resume_from_checkpoint false", {"resume_from_checkpoint": None}),
        ("--resume_from_checkpoint runs/a", {"resume_from_checkpoint": "runs/a"}),
        ("--overwrite_output_dir", {"overwrite": True}),
        ("--data_seed 42", {}),
        ("--seed 7 --data_seed 7", {"seed": 7}),
        ("--train_sampling_strategy group_by_length", {"train_sampling_strategy": "random"}),
        ("--optim adamw_torch_fused", {}),
    ],
)
def test_trls_words_become_ours(words: str, expected: dict[str, Any]):
    assert settings(*words.split()) == expected


def test_a_sampling_strategy_that_is_read_as_another_is_told():
    assert "group_by_length and batch_rebalance are read as random" in parse(
        "--train_sampling_strategy", "group_by_length"
    ).notes[0]  # fmt: skip
    assert parse("--train_sampling_strategy", "sequential").notes == []
    assert parse("--report_to", "none", "--resume_from_checkpoint", "True").notes == []


def test_the_arguments_of_from_pretrained_become_settings():
    words = '{"torch_dtype": "bfloat16", "revision": "v1", "use_cache": false, "attn_implementation": "eager"}'
    expected = {"precision": "bf16", "model_revision": "v1", "attn_implementation": "eager"}
    assert settings("--model_init_kwargs", words) == expected
    assert settings("--attn_implementation", "flex_attention") == {"attn_implementation": "flex_attention"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--bf16", "--fp16"], "--bf16 and --fp16 contradict each other"),
        (["--dtype", "int8"], "--dtype int8: must be one of auto, float32, bfloat16, float16"),
        (["--data_seed", "1"], "one seed rules the order as well: --seed 1"),
        (["--warmup_ratio", "1.5"], "--warmup_ratio 1.5: must be in [0, 1)"),
        (["--debug", "underflow_overflow"], "--debug underflow_overflow is not supported"),
        (["--model_init_kwargs", '{"device_map": "auto"}'], "device_map is not supported"),
        (["--model_init_kwargs", "{"], "must be JSON"),
        (["--gradient_checkpointing_kwargs", '{"context_fn": 1}'], "context_fn is not supported"),
        (["--attn_implementation", "flash_attention_2"], "a shared prompt needs a mask of its own, which sdpa takes"),
        (["--attn_implementation", "kernels-community/flash-attn"], "is not supported; leave it out"),
        (["--attn_implementation", "fast"], "must be one of sdpa, eager, flex_attention"),
        (["--model_init_kwargs", '{"attn_implementation": "flash_attention_2"}'], "leave it out: a shared prompt"),
        (["--max_target_length", "512"], "use --max_completion_length"),
        (["--load_in_4bit"], "train a LoRA adapter over full weights: --use_peft"),
    ],
)
def test_what_has_no_equivalent_says_what_to_use_instead(words: list[str], says: str):
    with pytest.raises(ConfigError) as caught:
        parse(*words)
    assert says in str(caught.value)


@of_every_method
def test_trls_none_is_accepted_from_yaml(tmp_path: Path, method: str):
    path = tmp_path / "config.yaml"
    nones = [name for name, flag in TRL[method].items() if flag["default"] is None]
    path.write_text("".join(f"{name}: null\n" for name in nones))
    assert parse("--config", str(path), method=method).config == config_type_of(method)()


@pytest.mark.parametrize(
    ("method", "words", "expected"),
    [
        ("sft", "--max_seq_length 512", {"max_length": 512}),
        ("sft", "--loss_type chunked_nll", {"loss_type": "nll"}),
        ("sft", "--packing --packing_strategy bfd", {"packing": True}),
        ("sft", "--neftune_noise_alpha 5 --label_smoothing_factor 0.1",
         {"neftune_noise_alpha": 5.0, "label_smoothing_factor": 0.1}),
        ("kto", "--desirable_weight 1.0 --train_sampling_strategy sequential",
         {"desirable_weight": 1.0, "train_sampling_strategy": "sequential"}),
        ("kto", "--sync_ref_model --ref_model_sync_steps 8", {"sync_ref_model": True, "ref_model_sync_steps": 8}),
        ("reward", "--bf16 --center_rewards_coefficient 0.01",
         {"precision": "bf16", "center_rewards_coefficient": 0.01}),
    ],
)  # fmt: skip
def test_trls_words_become_ours_in_every_command(method: str, words: str, expected: dict[str, Any]):
    assert settings(*words.split(), method=method) == expected


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("dpo", "sigmoid hinge ipo exo_pair nca_pair robust bco_pair sppo_hard aot aot_unpaired sigmoid_norm"),
        ("dpo", "apo_zero apo_down discopop sft"),
        ("kto", "kto apo_zero_unpaired"),
        ("sft", "nll dft chunked_nll"),
    ],
)  # fmt: skip
def test_every_loss_of_trls_is_here(method: str, names: str):
    for name in names.split():
        words = ["--label_smoothing", "0.001"] if name == "exo_pair" else []
        loss = settings("--loss_type", name, *words, method=method)["loss_type"]
        assert loss in (name, [name], "nll")


@pytest.mark.parametrize(
    ("method", "words", "says"),
    [
        ("sft", ["--packing_strategy", "wrapped"], "examples are packed whole"),
        ("sft", ["--dataset_kwargs", '{"skip_prepare_dataset": true}'], "rows are recognised one by one"),
        ("sft", ["--beta", "0.1"], "a setting of burnish dpo and burnish kto, which this command does not use"),
        ("kto", ["--label_smoothing_factor", "0.1"], "labels are taken as they are"),
        ("kto", ["--neftune_noise_alpha", "5"], "noise on the embeddings belongs to supervised tuning"),
        ("kto", ["--ref_model_sync_steps", "8"], "no effect without --sync_ref_model"),
        ("reward", ["--lora_task_type", "TOKEN_CLS"], "a reward model's adapter is one for SEQ_CLS"),
        ("reward", ["--load_in_4bit"], "train a LoRA adapter over full weights: --use_peft"),
        ("reward", ["--precompute_ref_log_probs"], "a setting of burnish dpo and burnish kto"),
    ],
)
def test_a_command_says_what_to_use_instead_in_its_own_settings(method: str, words: list[str], says: str):
    with pytest.raises(ConfigError) as caught:
        parse(*words, method=method)
    assert says in str(caught.value)


def test_a_token_is_never_shown():
    assert "hf_secret" not in parse("--hub_token", "hf_secret").notes[0]


def test_a_recipe_of_another_project_is_read_from_yaml(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "model_name_or_path: M\ntorch_dtype: null\nbf16: true\nbeta: 0.01\ndo_eval: true\n"
        "eval_strategy: steps\ngradient_checkpointing: true\ngradient_checkpointing_kwargs:\n  use_reentrant: false\n"
        "learning_rate: 5.0e-7\nlog_level: info\nlr_scheduler_type: cosine\noptim: adamw_torch\n"
        "push_to_hub: false\nwarmup_ratio: 0.1\nsave_strategy: 'no'\nhub_model_id: mine\n"
    )
    parsed = parse("--config", str(path))
    assert {name: getattr(parsed.config, name) for name in parsed.given} == {
        "model_name_or_path": "M",
        "precision": "bf16",
        "beta": 0.01,
        "eval_strategy": "steps",
        "gradient_checkpointing": True,
        "learning_rate": 5e-7,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "save_strategy": "no",
    }
    assert len(parsed.notes) == 3


def test_the_documents_are_those_that_the_table_makes():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/make_trl_docs.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_trackers_that_all_asks_for_are_those_installed():
    from importlib.util import find_spec

    (names,) = settings("--report_to", "all").values()
    assert names == [name for name in ("tensorboard", "wandb", "swanlab", "trackio", "mlflow") if find_spec(name)]

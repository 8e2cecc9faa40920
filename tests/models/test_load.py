from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertForMaskedLM, Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

from burnish.errors import ConfigError, ModelError, NumericsError
from burnish.models.load import disable_dropout, load_causal_lm, load_policy
from burnish.models.settings import ModelSettings

Make = Callable[..., Any]


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_are_the_files_own_in_train_mode(golden: Path, settings_for: Make) -> None:
    model = load_policy(settings_for(golden))
    for name, tensor in load_file(golden / "model.safetensors").items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert model.training
    assert model.name_or_path == str(golden)


def test_a_bf16_file_becomes_float32_masters(tiny_llama: Make, saved: Make, settings_for: Make) -> None:
    model = tiny_llama()
    folder = saved(model.bfloat16())
    loaded = load_policy(settings_for(folder))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.float())


def test_storage_may_be_bf16(golden: Path, settings_for: Make) -> None:
    model = load_policy(settings_for(golden), storage_dtype=torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_sharded_weights_load(tiny_llama: Make, saved: Make, settings_for: Make, logits_of: Make) -> None:
    model = tiny_llama()
    folder = saved(model)
    model.save_pretrained(folder, max_shard_size="30KB")
    (folder / "model.safetensors").unlink()
    assert torch.equal(logits_of(load_policy(settings_for(folder))), logits_of(model))


def test_loading_prints_nothing(golden: Path, settings_for: Make, capfd: pytest.CaptureFixture[str]) -> None:
    load_policy(settings_for(golden))
    assert capfd.readouterr() == ("", "")


def test_sdpa_is_the_default_and_eager_can_be_asked_for(golden: Path, settings_for: Make) -> None:
    assert load_policy(settings_for(golden)).config._attn_implementation == "sdpa"
    eager = load_policy(settings_for(golden, attn_implementation="eager"))
    assert eager.config._attn_implementation == "eager"


def test_eager_is_taken_where_the_model_has_no_sdpa(
    golden: Path, settings_for: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("transformers.Qwen2ForCausalLM._supports_sdpa", False)
    assert load_policy(settings_for(golden)).config._attn_implementation == "eager"
    assert "eager" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="--attn_implementation eager"):
        load_policy(settings_for(golden, attn_implementation="sdpa"))


def test_flex_attention_is_taken_where_the_model_has_it(
    golden: Path, settings_for: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    flex = settings_for(golden, attn_implementation="flex_attention")
    assert load_policy(flex).config._attn_implementation == "flex_attention"
    monkeypatch.setattr("transformers.Qwen2ForCausalLM._supports_flex_attn", False)
    with pytest.raises(ConfigError, match="has no flex_attention; leave --attn_implementation out"):
        load_policy(flex)


@pytest.mark.parametrize("key", ["_attn_implementation", "_attn_implementation_internal", "attn_implementation"])
def test_a_config_cannot_choose_the_attention_code(golden: Path, settings_for: Make, key: str) -> None:
    edit_config(golden, **{key: "somebody/kernel-that-runs"})
    assert load_policy(settings_for(golden)).config._attn_implementation == "sdpa"


def test_a_missing_folder_says_how_to_give_one(tmp_path: Path, settings_for: Make) -> None:
    with pytest.raises(ModelError, match=r"no folder .*--model_name_or_path \./folder"):
        load_policy(settings_for(tmp_path / "absent"))


def test_no_model_named_says_which_flag() -> None:
    with pytest.raises(ConfigError, match="--model_name_or_path"):
        load_policy(ModelSettings())


def test_a_file_instead_of_a_folder_is_told(golden: Path, settings_for: Make) -> None:
    with pytest.raises(ModelError, match="is a file"):
        load_policy(settings_for(golden / "model.safetensors"))


def test_a_folder_without_config_is_named(golden: Path, settings_for: Make) -> None:
    (golden / "config.json").unlink()
    with pytest.raises(ModelError, match=r"golden has no config\.json"):
        load_policy(settings_for(golden))


def test_a_broken_config_is_named(golden: Path, settings_for: Make) -> None:
    (golden / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is no readable JSON"):
        load_policy(settings_for(golden))


def test_an_unknown_model_type_is_named(golden: Path, settings_for: Make) -> None:
    edit_config(golden, model_type="frobnicator")
    with pytest.raises(ModelError, match=r"config\.json is not understood.*frobnicator"):
        load_policy(settings_for(golden))


def test_a_folder_without_weights_says_what_is_expected(golden: Path, settings_for: Make) -> None:
    (golden / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"golden has no weights: expected model\.safetensors"):
        load_policy(settings_for(golden))


def test_pickled_weights_are_not_opened(golden: Path, settings_for: Make) -> None:
    (golden / "model.safetensors").unlink()
    (golden / "pytorch_model.bin").write_bytes(b"canary")
    with pytest.raises(ModelError, match=r"pickles only \(pytorch_model\.bin\)"):
        load_policy(settings_for(golden))


@pytest.mark.parametrize("kept", [0, 5, 400, 0.5])
def test_truncated_weights_are_named(golden: Path, settings_for: Make, kept: float) -> None:
    file = golden / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if kept == 0.5 else int(kept)])
    with pytest.raises(ModelError, match=r"model\.safetensors is truncated or damaged"):
        load_policy(settings_for(golden))


def test_a_git_lfs_pointer_is_recognised(golden: Path, settings_for: Make) -> None:
    (golden / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelError, match="git lfs pull"):
        load_policy(settings_for(golden))


def test_a_shard_that_the_index_names_must_exist(tiny_llama: Make, saved: Make, settings_for: Make) -> None:
    model = tiny_llama()
    folder = saved(model)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ModelError, match=f"lacks {shard.name}"):
        load_policy(settings_for(folder))


def test_an_index_may_not_lead_out_of_its_folder(golden: Path, settings_for: Make) -> None:
    (golden / "model.safetensors").rename(golden.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "../outside.safetensors"}}
    (golden / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="outside its folder"):
        load_policy(settings_for(golden))


def test_a_config_may_not_name_weights_elsewhere(golden: Path, settings_for: Make) -> None:
    edit_config(golden, transformers_weights="../outside.safetensors")
    with pytest.raises(ModelError, match="outside its folder"):
        load_policy(settings_for(golden))


def test_a_missing_tensor_is_an_error(golden: Path, settings_for: Make) -> None:
    edit_weights(golden, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ModelError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        load_policy(settings_for(golden))


def test_an_unknown_tensor_is_an_error(golden: Path, settings_for: Make) -> None:
    edit_weights(golden, lambda weights: weights.update({"model.extra.weight": torch.zeros(2)}))
    with pytest.raises(ModelError, match=r"has besides model\.extra\.weight"):
        load_policy(settings_for(golden))


def test_another_shape_is_an_error(golden: Path, settings_for: Make) -> None:
    edit_weights(golden, lambda weights: weights.update({"model.norm.weight": torch.ones(63)}))
    with pytest.raises(ModelError, match=r"another shape of model\.norm\.weight"):
        load_policy(settings_for(golden))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_named(golden: Path, settings_for: Make, value: float) -> None:
    edit_weights(golden, lambda weights: weights["model.layers.2.mlp.up_proj.weight"].view(-1)[7].fill_(value))
    with pytest.raises(NumericsError, match=r"1 of \d+ values of model\.layers\.2\.mlp\.up_proj\.weight") as caught:
        load_policy(settings_for(golden))
    assert caught.value.exit_code == 4


def test_weights_whose_sum_overflows_are_fine(golden: Path, settings_for: Make) -> None:
    edit_weights(golden, lambda weights: weights["model.norm.weight"].fill_(3e38))
    model = load_policy(settings_for(golden))
    assert model.state_dict()["model.norm.weight"].min() > 2.9e38


def test_quantised_checkpoints_are_refused_by_name(golden: Path, settings_for: Make) -> None:
    edit_config(golden, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelError, match=r"quantised checkpoint \(gptq\).*original float weights"):
        load_policy(settings_for(golden))


def test_encoder_decoders_are_refused(golden: Path, settings_for: Make) -> None:
    edit_config(golden, model_type="t5", is_encoder_decoder=True)
    with pytest.raises(ModelError, match="encoder-decoder"):
        load_policy(settings_for(golden))


def test_other_kinds_of_models_are_refused(golden: Path, saved: Make, settings_for: Make) -> None:
    edit_config(golden, architectures=["Qwen2ForSequenceClassification"])
    with pytest.raises(ModelError, match="Qwen2ForSequenceClassification"):
        load_policy(settings_for(golden))
    shape: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    with pytest.raises(ModelError, match="BertForMaskedLM"):
        load_policy(settings_for(saved(BertForMaskedLM(BertConfig(vocab_size=96, **shape)), "bert")))


def test_code_beside_a_model_does_not_run_unasked(golden: Path, settings_for: Make) -> None:
    canary = golden.parent / "canary"
    edit_config(golden, model_type="mine", auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"})
    (golden / "code.py").write_text(f"open({str(canary)!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    with pytest.raises(ModelError, match="--trust_remote_code"):
        load_policy(settings_for(golden))
    assert not canary.exists()


def test_dropout_is_off_in_modules_attributes_and_config(tiny_llama: Make, saved: Make, settings_for: Make) -> None:
    folder = saved(tiny_llama(attention_dropout=0.3))
    model = load_policy(settings_for(folder))
    assert model.model.layers[0].self_attn.attention_dropout == 0
    assert model.config.attention_dropout == 0
    kept = load_policy(settings_for(folder, disable_dropout=False))
    assert kept.model.layers[0].self_attn.attention_dropout == 0.3


def test_no_dropout_is_left_in_gpt2() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=64, n_positions=32)).train()
    ids = torch.arange(20)[None]
    assert not torch.equal(model(ids).logits, model(ids).logits)
    disable_dropout(model)
    assert torch.equal(model(ids).logits, model(ids).logits)
    assert all(module.p == 0 for module in model.modules() if isinstance(module, nn.Dropout))
    assert model.config.resid_pdrop == model.config.attn_pdrop == model.config.embd_pdrop == 0


def test_gemma2_keeps_its_soft_capping(saved: Make, settings_for: Make, logits_of: Make) -> None:
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 32,
    }
    model = Gemma2ForCausalLM(Gemma2Config(vocab_size=96, num_key_value_heads=2, head_dim=8, **shape))
    loaded = load_policy(settings_for(saved(model)))
    assert loaded.config.final_logit_softcapping == model.config.final_logit_softcapping
    assert torch.allclose(logits_of(loaded), logits_of(model), atol=1e-5)


def test_a_reference_flag_is_named_in_its_messages(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--ref_model_name_or_path"):
        load_causal_lm(str(tmp_path / "absent"), ModelSettings(), flag="--ref_model_name_or_path")

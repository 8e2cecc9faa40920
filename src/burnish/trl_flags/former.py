"""Settings that TRL or transformers had in earlier versions, and that stand in many people's files."""

from __future__ import annotations

from typing import Any

from burnish.errors import ConfigError
from burnish.trl_flags.data import LOADER, LOADER_ZH, PADDING, PADDING_ZH
from burnish.trl_flags.kinds import Answer, Layer, NotNeeded, Refused, Same, Translated, renamed
from burnish.trl_flags.model import read_precision
from burnish.trl_flags.training import read_use_cpu


def read_warmup_ratio(value: Any, layer: Layer) -> dict[str, Any]:
    """`warmup_steps` below 1 is a share; given as well and not 0, it wins, as it did in transformers."""
    if not value or layer.get("warmup_steps"):
        return {}
    if not isinstance(value, float) or not 0 < value < 1:
        raise ConfigError(f"--warmup_ratio {value}: must be in [0, 1)")
    return {"warmup_steps": value}


_ALONE = "decoder-only models are recognised by themselves"
_ALONE_ZH = "自动识别仅解码器模型"
_TPU = "there is no such device here; see --device"
_TPU_ZH = "不支持该设备，见 --device"

FORMER: dict[str, Answer] = {
    "evaluation_strategy": renamed("eval_strategy"),
    "overwrite_output_dir": renamed("overwrite"),
    "train_batch_size": renamed("per_device_train_batch_size"),
    "per_gpu_train_batch_size": renamed("per_device_train_batch_size"),
    "eval_batch_size": renamed("per_device_eval_batch_size"),
    "per_gpu_eval_batch_size": renamed("per_device_eval_batch_size"),
    "warmup_ratio": Translated(
        "warmup_steps", read_warmup_ratio, "a value below 1 is a share of all steps", "小于 1 的值表示占总步数的比例"
    ),
    "no_cuda": Translated("device", read_use_cpu, "true is --device cpu", "true 即 --device cpu"),
    "torch_dtype": Translated("precision", read_precision, "as dtype", "同 dtype"),
    "tokenizer_name_or_path": Refused("the tokenizer is read from the model's folder", "分词器从模型文件夹读取"),
    "model_code_revision": Refused("use --model_revision", "请用 --model_revision", harmless=(None, False, "main")),
    "use_logits_to_keep": NotNeeded("only counted positions meet the vocabulary", "只有计入损失的位置才经过词表"),
    "use_num_logits_to_keep": NotNeeded("only counted positions meet the vocabulary", "只有计入损失的位置才经过词表"),
    "use_liger_loss": NotNeeded("only counted positions meet the vocabulary", "只有计入损失的位置才经过词表"),
    "dataset_mixer": Refused(
        "put the files into one folder and give that: --dataset_name FOLDER",
        "请把文件放入同一个文件夹：--dataset_name 文件夹",
    ),
    "dataset_splits": Refused(
        "use --dataset_train_split and --dataset_test_split", "请用 --dataset_train_split 和 --dataset_test_split"
    ),
    "preprocessing_num_workers": renamed("dataset_num_proc"),
    "chat_template": Refused("put it into a file: --chat_template_path FILE", "请放入文件：--chat_template_path 文件"),
    "sanity_check": Refused("use --max_train_samples, or --dry_run", "请用 --max_train_samples 或 --dry_run"),
    "group_by_length": NotNeeded(PADDING, PADDING_ZH),
    "dispatch_batches": NotNeeded(LOADER, LOADER_ZH),
    "split_batches": NotNeeded(LOADER, LOADER_ZH),
    "logging_dir": NotNeeded("trackers write below output_dir", "跟踪器写在 output_dir 之下"),
    "save_safetensors": NotNeeded("weights are always safetensors", "权重总是 safetensors 格式"),
    "include_tokens_per_second": NotNeeded("num_tokens and the times are always logged", "始终记录 num_tokens 和时间"),
    "include_inputs_for_metrics": NotNeeded("the metrics are the method's", "指标由方法决定"),
    "fp16_opt_level": NotNeeded("--precision fp16 has one way", "--precision fp16 只有一种方式"),
    "half_precision_backend": NotNeeded("--precision says it", "由 --precision 决定"),
    "fp16_backend": NotNeeded("--precision says it", "由 --precision 决定"),
    "push_to_hub_model_id": NotNeeded("nothing is uploaded", "不会上传任何内容"),
    "push_to_hub_organization": NotNeeded("nothing is uploaded", "不会上传任何内容"),
    "push_to_hub_token": NotNeeded("nothing is uploaded", "不会上传任何内容"),
    "ray_scope": NotNeeded("there is no hyperparameter search here", "此处没有超参搜索"),
    "past_index": NotNeeded("training keeps no key-value cache", "训练时不保留键值缓存"),
    "jit_mode_eval": NotNeeded("evaluation runs as training does", "评测与训练运行方式相同"),
    "use_ipex": Refused(_TPU, _TPU_ZH),
    "use_mps_device": Refused(_TPU, _TPU_ZH),
    "tpu_num_cores": Refused(_TPU, _TPU_ZH),
    "tpu_metrics_debug": Refused(_TPU, _TPU_ZH),
    "adafactor": Refused("the optimizer is AdamW; leave it out", "优化器为 AdamW，请去掉此项"),
    "torchdynamo": Refused(
        "compiled layers were measured and gain nothing over --fused_layers (docs/performance.md); leave it out",
        "实测编译各层并不优于 --fused_layers（见 docs/performance.md），请去掉此项",
    ),
    "mp_parameters": Refused(
        "models are not cut by layers over devices", "不按层把模型切分到多个设备", harmless=(None, False, "")
    ),
}

FORMER_REFERENCE: dict[str, Answer] = {
    "ref_model_init_kwargs": Refused(
        "use --ref_model_name_or_path and --ref_dtype", "请用 --ref_model_name_or_path 和 --ref_dtype"
    ),
    "generate_during_eval": Refused(
        "--num_samples answers held-out prompts before and after training",
        "--num_samples 会在训练前后回答留出的提示",
    ),
    "force_use_ref_model": Refused(
        "with --use_peft the reference is the adapter switched off; another one is --ref_model_name_or_path",
        "使用 --use_peft 时参考即关闭适配器的模型；另用他者请设 --ref_model_name_or_path",
    ),
    "model_adapter_name": NotNeeded("a run has one adapter", "一次运行只有一个适配器"),
    "ref_adapter_name": Refused(
        "the reference is the adapter switched off; another one is --ref_model_name_or_path",
        "参考即关闭适配器的模型；另用他者请设 --ref_model_name_or_path",
    ),
    "label_pad_token_id": NotNeeded("padding is masked, not labelled", "填充以掩码处理，没有标签"),
    "padding_value": NotNeeded(
        "padding is masked; its token is --pad_token", "填充以掩码处理，其词元由 --pad_token 决定"
    ),
    "is_encoder_decoder": Refused("models are decoder-only", "仅支持仅解码器模型"),
    "base_model_attribute_name": NotNeeded(_ALONE, _ALONE_ZH),
}
"""Settings of methods that compare with a reference."""

FORMER_LENGTHS: dict[str, Answer] = {
    "max_prompt_length": Same(
        "the prompt's last tokens are kept; burnish counts the rows that were cut",
        "保留提示末尾的词元；被裁剪的行会计数",
    ),
    "max_completion_length": Same("each completion's first tokens are kept", "保留每个回答开头的词元"),
    "max_target_length": Refused(
        "models are decoder-only; use --max_completion_length", "仅支持仅解码器模型，请用 --max_completion_length"
    ),
}
"""Lengths of a prompt and of its completions."""

FORMER_PAIRED: dict[str, Answer] = {
    "rpo_alpha": Same(
        "the likelihood of the chosen completion beside the other terms, by this weight: loss_type sigmoid sft",
        "在其他项之外按此权重加上所选回答的似然：即 loss_type sigmoid sft",
    ),
    "reference_free": Same(
        "the reference's log-probabilities are taken for 0, and no reference is loaded",
        "参考的对数概率取 0，不加载参考模型",
    ),
}
"""Settings that TRL's DPO has dropped, and that have a meaning."""

FORMER_PACKING: dict[str, Answer] = {
    "packing": Refused("packing belongs to supervised tuning; here " + PADDING, "打包用于监督微调；此处" + PADDING_ZH),
}
"""For methods that are not supervised."""

"""What TRL's own settings of DPO mean for `burnish dpo`, and those that several methods share beside it."""

from __future__ import annotations

from burnish.trl_flags.data import PADDING, PADDING_ZH
from burnish.trl_flags.kinds import Answer, NotNeeded, Refused, Same

_REFERENCE_JOB = Same("that of the reference job", "参考任务的取值")
_BATCH = Same(
    "that of the reference job; how a step is cut never changes the update, only the product of batch sizes counts",
    "参考任务的取值；一步如何切分不影响更新，只有批大小的乘积有意义",
)

REFERENCE: dict[str, Answer] = {
    "precompute_ref_batch_size": NotNeeded(
        "the reference scores each completion once, and --reference_cache keeps what it said for later runs",
        "参考模型对每个回答只计算一次，--reference_cache 会保留结果供以后的运行使用",
    ),
}
"""Methods that compare with a reference."""

PACKS: dict[str, Answer] = {"padding_free": NotNeeded(PADDING, PADDING_ZH)}
PAD_TOKEN: dict[str, Answer] = {
    "pad_token": Same("padding is never counted; the token only fills rows", "填充不计入任何统计，只用于补齐"),
}
ROUTER: dict[str, Answer] = {
    "router_aux_loss_coef": Same(
        "over the whole step, where TRL balances each micro-batch; unset, the model's own",
        "按整步计算，而 TRL 按微批计算；不设置时取模型自身的系数",
    ),
}
NO_NOISE: dict[str, Answer] = {
    "neftune_noise_alpha": Refused(
        "noise on the embeddings belongs to supervised tuning; leave it out",
        "嵌入噪声用于监督微调，请去掉此项",
        harmless=(None, False, 0.0),
    ),
}

DPO: dict[str, Answer] = {
    **REFERENCE,
    **PACKS,
    **PAD_TOKEN,
    **ROUTER,
    **NO_NOISE,
    "loss_type": Same(
        "all of TRL's, alone or together, and odpo, dpop, cal, simpo, cpo, orpo, alphapo, or package.module:function; "
        "aot sorts the whole step, bco_pair keeps its running δ; see docs/paper_index.md",
        "TRL 的全部目标，可单独或组合，另有 odpo、dpop、cal、simpo、cpo、orpo、alphapo 与 package.module:function；"
        "aot 对整步排序，bco_pair 保留累计的 δ；见 docs/paper_index.md",
    ),
    "beta": Same("0.1 unless given; simpo and alphapo need it given", "不给出时为 0.1；simpo 与 alphapo 必须给出"),
    "label_smoothing": Same(
        "honoured by sigmoid as cDPO, where TRL ignores it", "sigmoid 按 cDPO 使用它，而 TRL 会忽略"
    ),
    "num_train_epochs": _REFERENCE_JOB,
    "learning_rate": _REFERENCE_JOB,
    "logging_steps": _REFERENCE_JOB,
    "per_device_train_batch_size": _BATCH,
    "gradient_accumulation_steps": _BATCH,
    "truncation_mode": Same(
        "keep_end trims the prompt's start to fit the longer completion, the same for both; drop leaves such rows out",
        "keep_end 按较长的回答裁去提示开头，两侧相同；drop 则丢弃该行",
    ),
    "label_smoothing_factor": Refused(
        "use --label_smoothing (cDPO)", "请用 --label_smoothing（cDPO）", harmless=(None, False, 0.0)
    ),
}

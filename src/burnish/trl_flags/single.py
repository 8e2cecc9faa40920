"""What TRL's own settings of KTO, supervised tuning and reward models mean for the command of the same name."""

from __future__ import annotations

from typing import Any

from burnish.trl_flags.data import PADDING, PADDING_ZH, read_sampling
from burnish.trl_flags.kinds import Answer, NotNeeded, Refused, Same, renamed
from burnish.trl_flags.paired import NO_NOISE, PACKS, PAD_TOKEN, REFERENCE, ROUTER

_LABELS = "labels are taken as they are; leave it out"
_LABELS_ZH = "标签按原样使用，请去掉此项"
_CUT = "how a step is cut never changes the update, only the product of batch sizes counts"
_CUT_ZH = "一步如何切分不影响更新，只有批大小的乘积有意义"
_END = Same(
    "ends plain texts, and the finished model stops there; a turn ends as the template writes it",
    "纯文本以它结尾，训练后的模型在此停止；一轮的结尾由模板写出",
)
_TASK = "a reward model's adapter is one for SEQ_CLS, and its scalar head is trained beside it"
_TASK_ZH = "奖励模型的适配器类型为 SEQ_CLS，标量头与它一同训练"
_TEMPLATE = Same(
    "a Jinja file, or a folder with a tokenizer; no hub name",
    "Jinja 文件，或含有分词器的文件夹；不接受 hub 名称",
)


def read_supervised_loss(value: Any) -> Any:
    """TRL's former name of the likelihood."""
    word = value[0] if isinstance(value, list) and len(value) == 1 else value
    return "nll" if word == "chunked_nll" else value


_STEPS: dict[str, Answer] = {
    "per_device_train_batch_size": Same(_CUT, _CUT_ZH),
    "gradient_accumulation_steps": Same(_CUT, _CUT_ZH),
}

KTO: dict[str, Answer] = {
    **_STEPS,
    **REFERENCE,
    **ROUTER,
    **NO_NOISE,
    "loss_type": Same(
        "kto and apo_zero_unpaired as in TRL, and bco; the KL term is that of the whole step",
        "kto 与 apo_zero_unpaired 同 TRL，另有 bco；KL 项按整步计算",
    ),
    "desirable_weight": Same(
        "unset, the weight that balances the two kinds of rows as the paper advises, told at the start; 1 is TRL's",
        "不设置时按论文建议取使两类数据平衡的权重，并在开始时显示；TRL 取 1",
    ),
    "train_sampling_strategy": Same(
        "mismatched completions come from the step, whatever its order, so rows are shuffled; TRL needs them in order. "
        "group_by_length and batch_rebalance are read as random, since " + PADDING,
        "错配回答取自该步，与顺序无关，因此打乱数据；TRL 需要保持顺序。"
        "group_by_length 与 batch_rebalance 视为 random，因为" + PADDING_ZH,
        read=read_sampling,
        told=True,
    ),
    "label_smoothing_factor": Refused(_LABELS, _LABELS_ZH, harmless=(None, False, 0.0)),
}

SFT: dict[str, Answer] = {
    **_STEPS,
    **PACKS,
    **PAD_TOKEN,
    **ROUTER,
    "loss_type": Same(
        "chunked_nll, TRL's former name, is nll", "TRL 的旧名 chunked_nll 即 nll", read=read_supervised_loss
    ),
    "label_smoothing_factor": Same("for nll only", "仅用于 nll"),
    "truncation_mode": Same(
        "keep_end trims the prompt's start; drop leaves such rows out", "keep_end 裁去提示开头；drop 则丢弃该行"
    ),
    "packing": Same(
        "rows of several examples, each seeing itself only, and the same update as without",
        "一行放多个样本，彼此不可见，更新与不打包相同",
    ),
    "chat_template_path": _TEMPLATE,
    "assistant_only_loss": Same(
        "by the template's generation markers, or by the borders of turns where it has none",
        "按模板的 generation 标记；没有标记时按轮次边界",
    ),
    "dataset_kwargs": Refused(
        "rows are recognised one by one, token ids too; leave it out",
        "逐行识别数据格式，包括词元编号，请去掉此项",
        harmless=(None, False, {}),
    ),
    "eos_token": _END,
    "shuffle_dataset": NotNeeded(
        "every epoch is shuffled; --train_sampling_strategy sequential keeps the order",
        "每轮都会打乱；--train_sampling_strategy sequential 保持顺序",
    ),
    "packing_strategy": Refused(
        "examples are packed whole; leave it out", "样本总是完整地打包，请去掉此项", harmless=(None, False, "bfd")
    ),
    "eval_packing": NotNeeded("an evaluation's sums do not depend on how rows are packed", "评测的统计与如何打包无关"),
}

REWARD: dict[str, Answer] = {
    **_STEPS,
    **PAD_TOKEN,
    **NO_NOISE,
    "chat_template_path": _TEMPLATE,
    "eos_token": _END,
    "label_smoothing_factor": Refused(_LABELS, _LABELS_ZH, harmless=(None, False, 0.0)),
    "lora_task_type": Refused(_TASK, _TASK_ZH, harmless=(None, False, "CAUSAL_LM", "SEQ_CLS")),
}

FORMER_SFT: dict[str, Answer] = {
    "max_seq_length": renamed("max_length"),
    "dataset_batch_size": NotNeeded("rows are prepared in parts that fit the memory", "按内存分块预处理数据"),
    "num_of_sequences": NotNeeded("nothing is read before it is packed", "打包前不预读数据"),
    "chars_per_token": NotNeeded("tokens are counted, not guessed", "词元数按实际计算"),
    "use_liger": NotNeeded("only counted positions meet the vocabulary", "只有计入损失的位置才经过词表"),
}
"""Settings that TRL's supervised tuning had in earlier versions."""

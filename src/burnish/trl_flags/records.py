"""TRL's settings of logging, evaluation, saving and the hub."""

from __future__ import annotations

import importlib.util
from typing import Any

from burnish.engine.settings import TRACKERS
from burnish.errors import ConfigError
from burnish.trl_flags.kinds import Answer, NotNeeded, Refused, Same


def read_report_to(value: Any) -> Any:
    """TRL's words `none` (nothing) and `all` (every tracker that is installed)."""
    words = value if isinstance(value, list) else [value]
    if words in (["none"], [None]):
        return []
    if words == ["all"]:
        return [name for name in TRACKERS if importlib.util.find_spec(name) is not None]
    return value


def read_resume(value: Any) -> Any:
    """`True` is auto, as in trainer.train(resume_from_checkpoint=True); `False` is not at all."""
    word = value[0] if isinstance(value, list) and len(value) == 1 else value
    if str(word).lower() == "true":
        return "auto"
    return None if str(word).lower() == "false" else value


def read_debug(value: Any) -> Any:
    """TRL's empty list of debug options; those that there are have no equivalent."""
    words = value if isinstance(value, list) else [value]
    if words == [""]:
        return False
    if any(str(word) in ("underflow_overflow", "tpu_metrics_debug") for word in words):
        raise ConfigError(f"--debug {words[0]} is not supported; here --debug shows the tracebacks of errors")
    return value


_EVAL = "evaluation gathers sums on the device, no predictions"
_EVAL_ZH = "评测只在设备上累加统计量，不收集预测"
_HUB = "upload the finished model with: hf upload REPO OUTPUT_DIR/model"
_HUB_ZH = "请在训练结束后上传：hf upload 仓库 OUTPUT_DIR/model"
_HUB_UNUSED = "nothing is uploaded; for that: hf upload REPO OUTPUT_DIR/model"
_HUB_UNUSED_ZH = "不会上传任何内容；上传请用：hf upload 仓库 OUTPUT_DIR/model"
_SPACE = "records go to trackers on this machine; leave it out"
_SPACE_ZH = "记录只发送到本机的跟踪器，请去掉此项"
_ONE_LOG = "the first process writes the log, errors come from any"
_ONE_LOG_ZH = "日志由第一个进程写出，错误可来自任一进程"
_LEVELS = "notices go to standard error, records to standard output; --debug shows tracebacks"
_LEVELS_ZH = "提示写到标准错误，记录写到标准输出；--debug 显示调用栈"
_MEMORY = "not measured between steps"
_MEMORY_ZH = "不在步间测量"

RECORDS: dict[str, Answer] = {
    "output_dir": Same(
        "holds run.yaml, metrics.jsonl, checkpoints/ and the finished model in model/",
        "包含 run.yaml、metrics.jsonl、checkpoints/，以及 model/ 中的最终模型",
    ),
    "logging_nan_inf_filter": NotNeeded("a loss that is not finite is shown as it is", "非有限的损失如实显示"),
    "log_on_each_node": NotNeeded(_ONE_LOG, _ONE_LOG_ZH),
    "log_level": NotNeeded(_LEVELS, _LEVELS_ZH),
    "log_level_replica": NotNeeded(_LEVELS, _LEVELS_ZH),
    "include_num_input_tokens_seen": NotNeeded("num_tokens is always logged", "始终记录 num_tokens"),
    "disable_tqdm": Same(
        "bars show on a terminal only, unless true", "进度条只在终端显示；true 则完全关闭", may_be_none=True
    ),
    "report_to": Same(
        "none, all (those installed), or of tensorboard, wandb, swanlab, trackio, mlflow",
        "none、all（已安装的），或 tensorboard、wandb、swanlab、trackio、mlflow",
        read=read_report_to,
    ),
    "run_name": Same("unset, the output folder's name", "不设置时为输出文件夹名"),
    "project": Refused(
        "trackers name the project burnish", "跟踪器中的项目名为 burnish", harmless=(None, "huggingface")
    ),
    "trackio_space_id": Refused(_SPACE, _SPACE_ZH),
    "trackio_bucket_id": Refused(_SPACE, _SPACE_ZH),
    "trackio_static_space_id": Refused(_SPACE, _SPACE_ZH),
    "eval_strategy": Same(
        "unset, every eval_steps where there are evaluation rows, else never",
        "不设置时，有评测数据就每 eval_steps 步评测，否则不评测",
    ),
    "eval_steps": Same(
        "that of the reference job; TRL takes logging_steps", "参考任务的取值；TRL 取 logging_steps", may_be_none=True
    ),
    "eval_delay": Refused(
        "leave it out; --eval_steps says how often", "请去掉此项，由 --eval_steps 决定间隔", harmless=(None, False, 0.0)
    ),
    "per_device_eval_batch_size": Same(
        "evaluation is cut by tokens like training; only eval_steps_per_second uses it",
        "评测与训练一样按词元切分；它只影响 eval_steps_per_second",
    ),
    "prediction_loss_only": NotNeeded(_EVAL, _EVAL_ZH),
    "eval_do_concat_batches": NotNeeded(_EVAL, _EVAL_ZH),
    "eval_use_gather_object": NotNeeded(_EVAL, _EVAL_ZH),
    "eval_accumulation_steps": NotNeeded(_EVAL, _EVAL_ZH),
    "include_for_metrics": NotNeeded(_EVAL, _EVAL_ZH),
    "batch_eval_metrics": NotNeeded(_EVAL, _EVAL_ZH),
    "metric_for_best_model": Same("unset, eval_loss", "不设置时为 eval_loss"),
    "save_only_model": NotNeeded(
        "checkpoints hold what resuming needs, and the model alone stands in model/; --save_total_limit saves room",
        "检查点包含续训所需的一切，单独的模型在 model/；节省空间用 --save_total_limit",
    ),
    "save_on_each_node": NotNeeded("the run directory is written once", "运行目录只写一份"),
    "enable_jit_checkpoint": NotNeeded(
        "a run that is told to stop always commits a checkpoint first", "收到停止信号时总会先提交检查点"
    ),
    "resume_from_checkpoint": Same(
        "auto (or true) takes the newest good checkpoint of output_dir, a path takes that one",
        "auto（或 true）取 output_dir 中最新的完好检查点，路径则取该检查点",
        read=read_resume,
    ),
    "ignore_data_skip": Refused(
        "a resumed run goes on exactly where it stopped; for other rows start a new run from its model/",
        "续训总是从停止处精确继续；换数据请以其 model/ 开始新的运行",
    ),
    "restore_callback_states_from_checkpoint": NotNeeded("the command line has no callbacks", "命令行没有回调"),
    "push_to_hub": Refused(_HUB, _HUB_ZH),
    "hub_token": NotNeeded("it is read from HF_TOKEN or `hf auth login`", "从 HF_TOKEN 或 `hf auth login` 读取"),
    "hub_private_repo": NotNeeded(_HUB_UNUSED, _HUB_UNUSED_ZH),
    "hub_model_id": NotNeeded(_HUB_UNUSED, _HUB_UNUSED_ZH),
    "hub_strategy": NotNeeded(_HUB_UNUSED, _HUB_UNUSED_ZH),
    "hub_always_push": NotNeeded(_HUB_UNUSED, _HUB_UNUSED_ZH),
    "hub_revision": NotNeeded(_HUB_UNUSED, _HUB_UNUSED_ZH),
    "skip_memory_metrics": NotNeeded(_MEMORY, _MEMORY_ZH),
    "debug": Same(
        "here it shows the tracebacks of errors; TRL's underflow_overflow has no equivalent",
        "此处用于显示错误的调用栈；TRL 的 underflow_overflow 没有对应",
        read=read_debug,
        may_be_none=True,
    ),
    "do_train": NotNeeded("the command says it: it trains", "命令本身已说明：它就是训练"),
    "do_eval": NotNeeded("--eval_strategy says it", "由 --eval_strategy 决定"),
    "do_predict": NotNeeded("the command says it: it trains", "命令本身已说明：它就是训练"),
}

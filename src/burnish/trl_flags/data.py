"""TRL's settings of rows, splits, lengths and batches."""

from __future__ import annotations

from typing import Any

from burnish.trl_flags.kinds import Answer, NotNeeded, Refused, Same

_BATCHES = ("group_by_length", "batch_rebalance")


def read_sampling(value: Any) -> Any:
    """`group_by_length` and `batch_rebalance` want less padding, which the planner's cut by length gives any order."""
    word = value[0] if isinstance(value, list) and len(value) == 1 else value
    return "random" if word in _BATCHES else value


_STREAM = "rows are prepared once and read from disk by memory map; for a part of them use --max_train_samples"
_STREAM_ZH = "数据只预处理一次，之后从磁盘内存映射读取；只用一部分请设 --max_train_samples"
LOADER = "rows are prepared before training and read by memory map, no loader runs beside it"
LOADER_ZH = "数据在训练前已准备好并以内存映射读取，训练时没有加载进程"
PADDING = "micro-batches are cut by tokens (--max_tokens_per_micro_batch), which leaves little padding"
PADDING_ZH = "微批按词元数切分（--max_tokens_per_micro_batch），填充很少"

DATA: dict[str, Answer] = {
    "dataset_name": Same(
        "a hub id, a file, a folder saved by datasets, or a folder of files",
        "hub 名称、文件、datasets 保存的文件夹，或文件的文件夹",
    ),
    "dataset_streaming": Refused(_STREAM, _STREAM_ZH),
    "streaming": Refused(_STREAM, _STREAM_ZH),
    "datasets": Refused(
        "put the files into one folder and give that: --dataset_name FOLDER",
        "请把文件放入同一个文件夹：--dataset_name 文件夹",
        harmless=(None, False, []),
    ),
    "test_split_size": Refused(
        "put the rows to evaluate on into a file: --eval_dataset_name FILE, or several files: --eval_data NAME=FILE",
        "请把评测数据放入单独的文件：--eval_dataset_name 文件；多个评测集用 --eval_data 名称=文件",
    ),
    "dataset_num_proc": Same(
        "unset, one process and the tokenizer's own threads, which is the fastest for most data",
        "不设置时用一个进程和分词器自身的线程，多数情况下最快",
    ),
    "train_sampling_strategy": Same(
        "random or sequential; group_by_length and batch_rebalance are read as random, since " + PADDING,
        "random 或 sequential；group_by_length 与 batch_rebalance 视为 random，因为" + PADDING_ZH,
        read=read_sampling,
        told=True,
    ),
    "length_column_name": NotNeeded(PADDING, PADDING_ZH),
    "pad_to_multiple_of": NotNeeded(PADDING, PADDING_ZH),
    "auto_find_batch_size": NotNeeded(PADDING, PADDING_ZH),
    "remove_unused_columns": NotNeeded("columns that no method reads are left alone", "没有方法使用的列不会被读取"),
    "label_names": NotNeeded("the columns are recognised by themselves", "各列会自动识别"),
    "dataloader_drop_last": NotNeeded(
        "the last short step of an epoch keeps its rows and divides by its own count",
        "每轮最后不足的一步保留其数据，并按自身数量取平均",
    ),
    "dataloader_num_workers": NotNeeded(LOADER, LOADER_ZH),
    "dataloader_pin_memory": NotNeeded(LOADER, LOADER_ZH),
    "dataloader_persistent_workers": NotNeeded(LOADER, LOADER_ZH),
    "dataloader_prefetch_factor": NotNeeded(LOADER, LOADER_ZH),
    "dataloader_multiprocessing_context": NotNeeded(LOADER, LOADER_ZH),
    "dataloader_in_order": NotNeeded(LOADER, LOADER_ZH),
}

"""The audit: rows go the way of a run, without a model's weights, and nothing is kept but what was counted."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from burnish.data.audit import note_repetitions, note_shared_prompts
from burnish.data.chat import check_chat_template
from burnish.data.check.characters import count_characters, count_words, encode_characters
from burnish.data.check.measure import Measure
from burnish.data.check.template import TemplateCheck, check_template
from burnish.data.encoders import Encode, open_encoder
from burnish.data.formats import recognise
from burnish.data.kinds import KIND_OF, GroupKind
from burnish.data.prepare import Preparation
from burnish.data.report import DataReport
from burnish.data.rows import BadRow, DroppedRow, RowError, RowSource
from burnish.data.settings import DataSettings
from burnish.data.store import GroupStore, GroupWriter
from burnish.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROWS_LOOKED_AT = 1000
"""Rows by which the kind of a file is told, where nobody says it."""
SAMPLE_TOKENS = 60
Unit = Literal["tokens", "characters"]


@dataclass(slots=True)
class SplitCheck:
    """What was found in one split."""

    report: DataReport
    measure: Measure
    errors: list[str] = field(default_factory=list)
    """What would stop a run with these settings."""
    warnings: list[str] = field(default_factory=list)
    template: TemplateCheck | None = None
    distinct_prompts: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return all figures, for JSON."""
        bias = self.measure.bias()
        return {
            **self.report.as_dict(),
            "errors": self.errors,
            "warnings": self.warnings,
            "distinct_prompts": self.distinct_prompts,
            "lengths": {name: lengths.as_dict() for name, lengths in self.measure.lengths().items()},
            "words": self.measure.total_words if self.measure.words else None,
            "longest_row": self.measure.longest(),
            "length_bias": None if bias is None else bias.as_dict(),
            "template": None if self.template is None else self.template.as_dict(),
        }


@dataclass(slots=True)
class DataCheck:
    """What was found in the training split, and in the evaluation split if there is one."""

    kind: GroupKind
    unit: Unit
    max_length: int | None
    truncation_mode: str
    train: SplitCheck
    evaluation: SplitCheck | None = None
    sample: str = ""
    """The first row as the model sees it, prompt and first completion, shortened."""
    guessed: bool = False
    """Whether the kind was told by the rows."""

    @property
    def errors(self) -> list[str]:
        return [*self.train.errors, *(self.evaluation.errors if self.evaluation else [])]

    def as_dict(self) -> dict[str, Any]:
        """Return all figures, for JSON."""
        return {
            "kind": self.kind,
            "unit": self.unit,
            "max_length": self.max_length,
            "truncation_mode": self.truncation_mode,
            "sample": self.sample,
            "train": self.train.as_dict(),
            "eval": None if self.evaluation is None else self.evaluation.as_dict(),
        }


def check_data(
    rows: RowSource,
    eval_rows: RowSource | None,
    tokenizer: PreTrainedTokenizerBase | None,
    settings: DataSettings,
    *,
    kind: GroupKind | None = None,
    num_embeddings: int | None = None,
) -> DataCheck:
    """Audit rows as a run with these settings would prepare them; nothing is raised for what rows hold.

    Args:
        rows: the training rows.
        eval_rows: rows to evaluate on, whose overlap with the training rows is counted.
        tokenizer: fast; None measures in characters, judges no template and no truncation.
        settings: max_length, truncation_mode, on_bad_row, strict_data and dataset_num_proc are used.
        kind: what a method learns from; None takes what most of the first rows are.
        num_embeddings: how many tokens the model embeds; None is not judged.

    Raises:
        DataError: a file that cannot be read at all.
    """
    guessed, kind = kind is None, kind or guess_kind(rows)
    fault = None if tokenizer is None else _missing_template(rows, tokenizer)
    usable = None if fault else tokenizer
    if usable is None:
        settings = replace(settings, max_length=None, max_prompt_length=None, max_completion_length=None)
    with tempfile.TemporaryDirectory(prefix="burnish-check-") as folder:
        train, groups = _check_split(rows, usable, settings, kind, Path(folder) / "train.arrow")
        train.errors += [fault] if fault else []
        check = DataCheck(
            kind=kind,
            unit="tokens" if usable else "characters",
            max_length=settings.max_length,
            truncation_mode=settings.truncation_mode,
            train=train,
            sample=_sample(train.measure, usable),
            guessed=guessed,
        )
        if eval_rows is not None:
            check.evaluation, held_out = _check_split(eval_rows, usable, settings, kind, Path(folder) / "eval.arrow")
            note_shared_prompts(check.evaluation.report, held_out, groups)
        if usable is not None and num_embeddings is not None and groups.highest_id >= num_embeddings:
            train.errors.append(
                f"the rows hold token {groups.highest_id}, and the model embeds only {num_embeddings:,}: the tokenizer "
                "is another model's"
            )
    return check


def guess_kind(rows: RowSource) -> GroupKind:
    """Return what most of the first rows are; preference pairs where none is known."""
    kinds: Counter[GroupKind] = Counter()
    for row, _ in islice(rows, ROWS_LOOKED_AT):
        if isinstance(row, BadRow):
            continue
        try:
            shape = recognise(row).shape
        except (RowError, DroppedRow):
            continue
        if shape in KIND_OF:
            kinds[KIND_OF[shape]] += 1
    return kinds.most_common(1)[0][0] if kinds else "preference"


def _missing_template(rows: RowSource, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Say that conversations meet a tokenizer without a chat template, if they do among the first rows."""
    for row, _ in islice(rows, ROWS_LOOKED_AT):
        try:
            if isinstance(row, BadRow) or recognise(row).layout != "conversational":
                continue
            check_chat_template(tokenizer)
        except (RowError, DroppedRow):
            continue
        except DataError as error:
            return str(error)
    return None


def _check_split(
    rows: RowSource, tokenizer: PreTrainedTokenizerBase | None, settings: DataSettings, kind: GroupKind, path: Path
) -> tuple[SplitCheck, GroupStore]:
    if tokenizer is None:
        measure = Measure(kind, length=count_characters, words=count_words)
    else:
        marked = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        measure = Measure(kind, special_ids=frozenset(marked.union(tokenizer.all_special_ids)))
    work = Preparation(rows, settings, kind, DataReport(rows.name), observe=measure)
    with GroupWriter(path) as writer, _encoder(tokenizer, settings.dataset_num_proc) as encode:
        work.run(writer.add, encode)
    groups = GroupStore.open(path, writer.fingerprint)
    note_repetitions(work.report, groups, work.hashes)
    check = SplitCheck(work.report, measure, errors=list(work.faults()))
    check.distinct_prompts = len({hash(group.prompt_ids.tobytes()) for group in groups})
    if not check.errors and not len(groups):
        left = "no row is left to train on" if work.report.rows_read else "there are no rows"
        check.errors.append(f"{rows.name}: {left}")
    if tokenizer is not None:
        check.template = check_template(tokenizer, measure.ends, measure.first_example)
        check.warnings += check.template.warnings() if check.template else []
    return check, groups


@contextmanager
def _encoder(tokenizer: PreTrainedTokenizerBase | None, num_processes: int | None) -> Iterator[Encode]:
    if tokenizer is None:
        yield encode_characters
        return
    with open_encoder(tokenizer, num_processes) as encode:
        yield encode


def _sample(measure: Measure, tokenizer: PreTrainedTokenizerBase | None) -> str:
    """Decode the first row's prompt and first completion, the middle left out where it is long."""
    if tokenizer is None or measure.first is None or not measure.first.completion_ids:
        return ""
    ids = [*measure.first.prompt_ids, *measure.first.completion_ids[0]]
    decode: Any = tokenizer.decode
    if len(ids) <= 2 * SAMPLE_TOKENS:
        return decode(ids, skip_special_tokens=False)
    return f"{decode(ids[:SAMPLE_TOKENS])} […] {decode(ids[-SAMPLE_TOKENS:])}"

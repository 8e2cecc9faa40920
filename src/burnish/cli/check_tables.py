"""The audit's figures as tables on a terminal, as plain columns elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from burnish.console import printable
from burnish.data.report import KINDS, count_of

if TYPE_CHECKING:
    from rich.console import Console

    from burnish.data.check.audit import DataCheck, SplitCheck
    from burnish.data.check.lengths import Lengths

KIND_IN_WORDS = {
    "preference": "preference pairs",
    "unpaired": "labelled completions",
    "sft": "completions to imitate",
    "ranking": "ranked lists",
}
ONE_KIND = {
    "preference": "preference pair",
    "unpaired": "labelled completion",
    "sft": "completion to imitate",
    "ranking": "ranked list",
}
STYLES = {"error": "bold red", "dropped": "yellow", "cut": "yellow", "noted": "cyan", "warning": "yellow"}
PLACES_SHOWN = 3
REASONS_SHOWN = 8
BAR = 30
FEWEST_PAIRS = 20
"""Pairs below which a share says little."""
TELLING_SHARE = 0.65
"""Share of pairs from which on length alone tells the better completion well enough to be learnt instead of it."""


def print_check(check: DataCheck, console: Console) -> None:
    """Print the whole audit."""
    _print_split(check, check.train, "", console)
    if check.evaluation is not None:
        console.print()
        _print_split(check, check.evaluation, "evaluation: ", console)
    if check.sample:
        console.print("\nthe first row as the model sees it (`burnish explain` shows any row in full):", style="bold")
        console.print(Text(_indented(printable(check.sample))))
    console.print()
    if check.unit == "characters":
        _line(
            console,
            "note",
            "measured in characters, for there is no tokenizer: truncation, template and end-of-turn tokens are "
            "judged with --model_name_or_path M",
        )
    if check.guessed and any(reason.startswith("the row is ") for reason in check.train.report.alike):
        _line(console, "note", f"judged as {KIND_IN_WORDS[check.kind]}, which most rows are; --kind names another")
    for warning in (*check.train.warnings, *(check.evaluation.warnings if check.evaluation else [])):
        _line(console, "warning", warning)
    for error in check.errors:
        _line(console, "error", error)
    if not check.errors:
        console.print("no errors: a run with these settings would start")


def _line(console: Console, head: str, words: str) -> None:
    console.print(Text.assemble((f"{head}: ", STYLES.get(head, "bold")), printable(words)))


def _print_split(check: DataCheck, split: SplitCheck, head: str, console: Console) -> None:
    report = split.report
    words = f", {count_of(split.measure.total_words, 'word', 'words')}" if split.measure.words else ""
    title = (
        f"{head}{report.source}: {count_of(report.rows_read, 'row', 'rows')}, "
        f"{count_of(report.groups_used, ONE_KIND[check.kind], KIND_IN_WORDS[check.kind])} used, "
        f"{count_of(split.distinct_prompts, 'prompt', 'different prompts')}{words}"
    )
    console.print(Text(printable(title), "bold"))
    forms = ", ".join(f"{number:,} {form}" for form, number in report.forms.most_common())
    console.print(Text(f"forms: {forms or 'none known'}"))
    if any(report.counts.values()):
        console.print(_problems(split))
    else:
        console.print("nothing rejected, dropped, cut or noted")
    lengths = split.measure.lengths()
    if lengths:
        console.print(_lengths(lengths, check.unit))
        console.print(_histogram(lengths["whole row"], check.unit))
    for line in (*_truncation(check, split), *_bias(check, split), *_template(split)):
        console.print(Text(line))


def _table(*columns: str, left: int = 1) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    return table


def _problems(split: SplitCheck) -> Table:
    report = split.report
    table = _table("fate", "rows", "share", "what", "where", left=1)
    for column in table.columns[3:]:
        column.justify = "left"
    for kind, (fate, one, many) in KINDS.items():
        number = report.counts[kind]
        if not number:
            continue
        name = "error" if fate == "rejected" else fate
        share = f"{100 * number / max(report.rows_read, 1):.1f} %"
        what = one if number == 1 else many
        where = _places(report.places[kind], report.source, number)
        table.add_row(Text(name, STYLES[name]), f"{number:,}", share, what, where)
        if kind == "bad_row":
            for reason, count in report.alike.most_common(REASONS_SHOWN):
                table.add_row("", Text(f"{count:,}", "dim"), "", Text(printable(f"  {reason}"), "dim"), "")
    return table


def _places(places: list[str], source: str, number: int) -> Text:
    """Say the first places, without the name of the only file."""
    short = [place.removeprefix(source).lstrip("/:, ") for place in places[:PLACES_SHOWN]]
    if all(place.isdigit() for place in short):
        short[0] = f"line {short[0]}" if len(short) == 1 else f"lines {short[0]}"
    elif all(place.startswith("row ") for place in short) and len(short) > 1:
        short = [f"rows {short[0].removeprefix('row ')}", *(place.removeprefix("row ") for place in short[1:])]
    return Text(printable(", ".join(short)) + (", …" if number > len(short) else ""))


def _lengths(lengths: dict[str, Lengths], unit: str) -> Table:
    table = _table(unit, "shortest", "median", "mean", "95 %", "99 %", "longest")
    for name, one in lengths.items():
        label = "prompt + longest" if name == "whole row" else name
        figures = (one.least, one.median, one.mean, one.p95, one.p99, one.most)
        table.add_row(label, *(f"{figure:,.0f}" for figure in figures))
    return table


def _histogram(lengths: Lengths, unit: str) -> Table:
    table = _table(f"{unit} a row", "rows", "up to here", "", left=0)
    table.columns[3].justify = "left"
    most = max(one.count for one in lengths.histogram)
    seen = 0
    for one in lengths.histogram:
        seen += one.count
        span = f"{one.least:,}" if one.least == one.most else f"{one.least:,}-{one.most:,}"
        bar = "#" * max(round(BAR * one.count / most), 1 if one.count else 0)
        table.add_row(span, f"{one.count:,}", f"{100 * seen / lengths.count:.1f} %", Text(bar, "cyan"))
    return table


def _truncation(check: DataCheck, split: SplitCheck) -> list[str]:
    longest = split.measure.longest()
    if check.max_length is None or not longest:
        return []
    counts = split.report.counts
    lost = sum(counts[kind] for kind in ("overlong_prompt", "overlong_completion", "too_long"))
    cut = counts["completion_cut"] + counts["prompt_trimmed"]
    if not lost and not cut:
        return [f"truncation: none, the longest row has {longest:,} of max_length {check.max_length:,} tokens"]
    limit = f"max_length {check.max_length:,} ({check.truncation_mode})"
    return [f"truncation: {limit} cuts {cut:,} and drops {lost:,} rows; --max_length {longest} would keep all whole"]


def _bias(check: DataCheck, split: SplitCheck) -> list[str]:
    bias = split.measure.bias()
    if bias is None or bias.share is None:
        return []
    better = "chosen" if check.kind == "preference" else "best"
    unequal = count_of(bias.num_unequal, "pair", "pairs")
    line = (
        f"length bias: the {better} completion is the longer in {100 * bias.share:.1f} % of {unequal} of "
        f"unequal length, by {bias.mean_difference:+,.1f} {check.unit} on average"
    )
    if max(bias.share, 1 - bias.share) >= TELLING_SHARE and bias.num_unequal >= FEWEST_PAIRS:
        line += "; length alone tells it that often, so compare replies of equal length after training"
    return [line]


def _template(split: SplitCheck) -> list[str]:
    template = split.template
    if template is None:
        return []
    own = ", and the template writes one where a row has none" if template.writes_own_system else ""
    ends = ", ".join(f"{token} ({count:,})" for token, count in template.ends.items())
    return [f"template: a system turn is {template.system_turn}{own}; completions end with {ends}"]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))

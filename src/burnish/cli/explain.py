"""`burnish explain D --row 7 --model_name_or_path M`: one row as the model will see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from burnish.cli.arguments import parse_arguments
from burnish.cli.help import print_help
from burnish.console import notice, printable
from burnish.data.settings import DataSettings, check_data_settings
from burnish.errors import EXIT_DONE, ConfigError
from burnish.models.settings import ModelSettings, check_model_settings
from burnish.ranges import COUNT, check_ranges

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from burnish.data.explain import ExplainedText, Explanation

STYLES = {"prompt": "cyan", "counted": "bold green", "not counted": "yellow", "cut": "red strike"}
IDS_SHOWN = 6


@dataclass(kw_only=True)
class ExplainConfig(DataSettings, ModelSettings):
    """Settings of `burnish explain`: those of a run that decide what the model sees, and the row."""

    row: int = 1
    """The row to explain, from 1; in JSON Lines files, the line number."""

    def __post_init__(self) -> None:
        """Raise ConfigError for what is out of range."""
        check_ranges(self, {"row": COUNT})
        check_data_settings(self)
        check_model_settings(self)


def run(argv: list[str]) -> int:
    """Run the command: the data set as first word (or --dataset_name), then flags."""
    if "--help" in argv or "-h" in argv or "--help-all" in argv:
        print_help("explain", ExplainConfig, everything="--help-all" in argv)
        return EXIT_DONE
    argv = [word for word in argv if word != "--debug"]  # main's own
    named = argv[:1] if argv and not argv[0].startswith("-") else []
    words = [*(["--dataset_name", *named] if named else []), *argv[len(named) :]]
    parsed = parse_arguments(words, ExplainConfig)
    for note in parsed.notes:
        notice(note)
    run_explain(parsed.config, parsed.config.row)
    return EXIT_DONE


def run_explain(settings: ExplainConfig, row: int) -> None:
    """Print one row of the training split.

    Raises:
        ConfigError: no data set or no model is named.
        DataError: no such row, or rows that can't be read.
    """
    from burnish.cli.terminal import open_console
    from burnish.data.explain import explain_row
    from burnish.data.sources import load_rows
    from burnish.models.tokenizer import load_tokenizer

    if settings.dataset_name is None:
        raise ConfigError("name the data set: burnish explain rows.jsonl --row 7 --model_name_or_path M")
    rows = load_rows(settings)
    explanations = explain_row(rows, row, load_tokenizer(settings, settings), settings)
    console = open_console(soft_wrap=True)
    for explanation in explanations:
        print_explanation(explanation, console)


def print_explanation(explanation: Explanation, console: Console) -> None:
    """Print what becomes of a row: colours on a terminal, the same words without."""
    form = f" · {explanation.form}" if explanation.form else ""
    console.print(f"{explanation.place}{form} · {explanation.fate}", style="bold", markup=False)
    for note in explanation.notes:
        console.print(f"  {note}", markup=False)
    for text in explanation.texts:
        console.print()
        console.print(_heading(text), style="bold", markup=False)
        for segment in text.segments:
            first = ", ".join(map(str, segment.ids[:IDS_SHOWN])) + (", …" if len(segment.ids) > IDS_SHOWN else "")
            label = f"  {segment.state}: {_tokens(len(segment.ids))} [{first}]"
            console.print(label, style="dim", markup=False)
            console.print(_indented(segment.text, STYLES[segment.state]))


def _heading(text: ExplainedText) -> str:
    kept = text.count("prompt", "counted", "not counted")
    counted = "" if text.name == "prompt" else f", {text.count('counted'):,} counted"
    cut = f", {text.count('cut'):,} more cut" if text.count("cut") else ""
    return f"{text.name}: {_tokens(kept)}{counted}{cut}"


def _tokens(number: int) -> str:
    return f"{number:,} token" if number == 1 else f"{number:,} tokens"


def _indented(text: str, style: str) -> Text:
    from rich.text import Text

    return Text("\n".join(f"    {line}" for line in printable(text).split("\n")), style=style)

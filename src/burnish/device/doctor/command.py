"""`burnish doctor` behind its flags: a round of checks, or the explanation of a text."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from typing import TextIO

from burnish import __version__
from burnish.device.doctor.chain import examine
from burnish.device.doctor.explain import Explanation, explain
from burnish.device.doctor.findings import in_words
from burnish.device.doctor.machine import Machine
from burnish.device.doctor.messages import MESSAGES, Language
from burnish.device.doctor.report import Report, print_explanations
from burnish.device.doctor.smoke import loaded_torch

EXIT_WELL = 0
EXIT_UNKNOWN_TEXT = 2
EXIT_FAILURES = 2


def diagnose(machine: Machine, *, language: Language, smoke: bool, as_json: bool, out: TextIO) -> int:
    """Go down the chain and print the report.

    Returns:
        0, or 2 where a check failed; warnings alone are 0.
    """
    report = Report(machine, language, out=io.StringIO() if as_json else out, smoke=smoke)
    if not as_json:
        print(f"burnish doctor {__version__}\n", file=out, flush=True)
    for link, finding in examine(machine, smoke=smoke):
        report.tell(link, finding)
    loaded = loaded_torch(machine)
    code = EXIT_FAILURES if report.failed else EXIT_WELL
    if as_json:
        facts = report.as_facts(loaded, version=__version__, exit_code=code)
        print(json.dumps(facts, ensure_ascii=False, indent=2), file=out)
    else:
        report.end(loaded)
    return code


def explain_text(lines: Iterable[str], *, language: Language, as_json: bool, out: TextIO) -> int:
    """Name cause and cure of every known text.

    Returns:
        0 where at least one text is known, 2 where none is.
    """
    found = explain(lines)
    if as_json:
        print(json.dumps([_as_facts(item, language) for item in found], ensure_ascii=False, indent=2), file=out)
    elif found:
        print_explanations(found, language, out)
    else:
        message = MESSAGES["explain.unknown"]
        print(message.text(language), message.cure(language), sep="\n", file=out)
    return EXIT_WELL if found else EXIT_UNKNOWN_TEXT


def language_of(machine: Machine) -> Language:
    """Chinese where the locale says so, else English; the variables rank as the C library ranks them."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := machine.variable(name):
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


def _as_facts(item: Explanation, language: Language) -> dict[str, str | int]:
    return {
        "name": item.name,
        "line_number": item.line_number,
        "times": item.times,
        "line": item.line,
        "cause": in_words(item.cause, language),
        "cure": in_words(item.cure, language),
    }

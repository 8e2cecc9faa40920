"""Write docs/trl.md and docs/zh/trl.md from the table of TRL's settings; `--check` only says whether they are current.

Run after a change of a setting, a default or the table: `.venv/bin/python tools/make_trl_docs.py`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from burnish.cli.methods import TRAINING, config_type_of
from burnish.trl_flags import ACCELERATE, FORMERS, TABLES, Answer, NotNeeded, Refused, Same, Translated

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"

ENGLISH = {
    "title": "# Coming from TRL: every setting of `trl dpo`, `kto`, `sft` and `reward`",
    "made": "<!-- made by tools/make_trl_docs.py from src/burnish/trl_flags; change those, not this file -->",
    "intro": (
        "Change `trl dpo` to `burnish dpo`, and `kto`, `sft` and `reward` alike: both commands in TRL's own `dpo.py` "
        "run unchanged, and so does a YAML file given by `--config`. This page lists every setting of TRL {trl} (with "
        "transformers {transformers}) and what burnish makes of it, flags and YAML keys alike: {counts}. The second "
        "column says which commands a row is about. In Python, `DPOConfig`, `KTOConfig`, `SFTConfig` and "
        "`RewardConfig` take them too, by the same answers."
    ),
    "columns": "| setting | of | TRL | burnish | note |",
    "all": "all",
    "other": "## Same name, other default",
    "same": "## Same name, same default",
    "translated": "## Translated",
    "not_needed": "## Not needed\n\nAccepted; one line says why, and the run goes on.",
    "refused": (
        "## Refused by name\n\nAn error that says what to use instead, unless the value asks for nothing: that passes."
    ),
    "former": "## Settings of earlier versions of TRL and transformers",
    "accelerate": "## What `trl` hands on to `accelerate launch`",
    "more": (
        "## What TRL does not have\n\nSettings of burnish alone; `--help-all` of a command says what each does."
        "\n\n{names}"
    ),
    "not_needed_word": "not needed",
    "refused_word": "refused",
    "passes": "passes: {values}",
    "unset": "unset",
    "stop": ".",
}

CHINESE = {
    "title": "# 从 TRL 迁移：`trl dpo`、`kto`、`sft` 与 `reward` 的全部设置",
    "made": "<!-- 由 tools/make_trl_docs.py 根据 src/burnish/trl_flags 生成；请修改后者，不要修改本文件 -->",
    "intro": (
        "把 `trl dpo` 换成 `burnish dpo` 即可，`kto`、`sft` 与 `reward` 也一样：TRL 自带 `dpo.py` 中的两条命令"
        "无需修改就能运行，`--config` 指定的 YAML 文件也一样。本页列出 TRL {trl}（transformers {transformers}）的"
        "每一个设置以及 burnish 如何处理它，命令行参数与 YAML 键相同：{counts}。第二列说明该行适用于哪些命令。"
        "在 Python 中，`DPOConfig`、`KTOConfig`、`SFTConfig` 与 `RewardConfig` 按同样的规则接受这些设置。"
    ),
    "columns": "| 设置 | 命令 | TRL | burnish | 说明 |",
    "all": "全部",
    "other": "## 同名，默认值不同",
    "same": "## 同名，默认值相同",
    "translated": "## 自动转换",
    "not_needed": "## 不需要\n\n可以给出；会用一行说明原因，训练照常进行。",
    "refused": "## 明确拒绝\n\n报错并说明替代方法；如果取值等于什么都不做，则放行。",
    "former": "## TRL 与 transformers 早期版本的设置",
    "accelerate": "## `trl` 转交给 `accelerate launch` 的参数",
    "more": "## TRL 没有的设置\n\nburnish 独有，各命令的 `--help-all` 说明各自的作用。\n\n{names}",
    "not_needed_word": "不需要",
    "refused_word": "拒绝",
    "passes": "放行：{values}",
    "unset": "未设置",
    "stop": "。",
}


@dataclass(frozen=True)
class Page:
    """One language's page."""

    words: dict[str, str]
    path: Path
    script: Path
    """What a script's other lines mean here, by hand."""
    is_chinese: bool


PAGES = (
    Page(ENGLISH, ROOT / "docs" / "trl.md", ROOT / "tools" / "trl_script.en.md", False),
    Page(CHINESE, ROOT / "docs" / "zh" / "trl.md", ROOT / "tools" / "trl_script.zh.md", True),
)


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = [page.path for page in PAGES if not write(page, check=check)]
    for path in stale:
        print(f"{path.relative_to(ROOT)} is out of date: run python tools/make_trl_docs.py")
    return 1 if stale else 0


def write(page: Page, *, check: bool) -> bool:
    """Write a page; with `check`, only say whether it is what would be written."""
    text = render(page)
    if check:
        return page.path.exists() and page.path.read_text(encoding="utf-8") == text
    page.path.parent.mkdir(parents=True, exist_ok=True)
    page.path.write_text(text, encoding="utf-8")
    return True


def render(page: Page) -> str:
    golden = {method: read_golden(method) for method in TRAINING}
    words = page.words
    rows: dict[str, Rows] = {section: {} for section in ("other", "same", "translated", "not_needed", "refused")}
    for method, recorded in golden.items():
        for name, flag in recorded["flags"].items():
            section, cells = answered(page, method, name, flag["default"])
            rows[section].setdefault((name, cells), []).append(method)
    former: Rows = {}
    for method in TRAINING:
        for name, answer in FORMERS[method].items():
            ours = f"`{name}`" if isinstance(answer, Same) else verdict(page, answer)
            former.setdefault((name, ("", ours, note_of(page, answer))), []).append(method)
    launched: Rows = {
        (name, ("", verdict(page, answer), note_of(page, answer))): list(TRAINING)
        for name, answer in ACCELERATE.items()
    }
    counts = ", ".join(f"{len(recorded['flags'])} ({method})" for method, recorded in golden.items())
    parts = [
        words["title"],
        words["made"],
        words["intro"].format(**golden["kto"]["versions"], counts=counts),
        page.script.read_text(encoding="utf-8").strip(),
    ]
    parts += [table(page, section, rows[section]) for section in rows]
    parts += [table(page, "former", former), table(page, "accelerate", launched)]
    parts.append(words["more"].format(names=burnish_alone(page, golden)))
    return "\n\n".join(parts) + "\n"


Rows = dict[tuple[str, tuple[str, str, str]], list[str]]
"""Setting and cells (TRL's default, ours or the verdict, note) → the methods that they are true of."""


def read_golden(method: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"trl_{method}_flags.json").read_text(encoding="utf-8"))


def answered(page: Page, method: str, name: str, default: Any) -> tuple[str, tuple[str, str, str]]:
    """The section of a setting of TRL's, and its cells."""
    answer, ours = TABLES[method].get(name), defaults_of(method)
    if name in ours and not isinstance(answer, Refused):
        note = "" if answer is None else note_of(page, answer)
        section = "same" if default == ours[name] else "other"
        return section, (show(page, default), show(page, ours[name]), note)
    if answer is None:
        raise KeyError(f"{name} of trl {method} has no answer")
    section = {Translated: "translated", NotNeeded: "not_needed", Refused: "refused"}[type(answer)]
    return section, (show(page, default), verdict(page, answer), note_of(page, answer))


@cache
def defaults_of(method: str) -> dict[str, Any]:
    return {field.name: default_of(field) for field in dataclasses.fields(config_type_of(method))}


def burnish_alone(page: Page, golden: dict[str, Any]) -> str:
    """A paragraph for each set of methods that have the same further settings."""
    users: dict[str, list[str]] = {}
    for method, recorded in golden.items():
        for name in sorted(defaults_of(method).keys() - recorded["flags"].keys() - FORMERS[method].keys()):
            users.setdefault(name, []).append(method)
    grouped: dict[tuple[str, ...], list[str]] = {}
    for name, methods in sorted(users.items()):
        grouped.setdefault(tuple(methods), []).append(f"`{name}`")
    several = sorted(grouped.items(), key=lambda item: -len(item[0]))
    return "\n\n".join(f"{of(page, methods)}: {', '.join(names)}{page.words['stop']}" for methods, names in several)


def of(page: Page, methods: Sequence[str]) -> str:
    return page.words["all"] if len(methods) == len(TRAINING) else ", ".join(methods)


def table(page: Page, section: str, rows: Rows) -> str:
    """One row for each setting and answer, in the order of TRL's lists."""
    order = list(dict.fromkeys(name for name, _ in rows))
    in_order = sorted(rows.items(), key=lambda row: order.index(row[0][0]))
    lines = [f"| `{name}` | {of(page, methods)} | {' | '.join(cells)} |" for (name, cells), methods in in_order]
    return "\n".join([page.words[section], "", page.words["columns"], "|---|---|---|---|---|", *lines])


def verdict(page: Page, answer: Answer) -> str:
    match answer:
        case Translated():
            return ", ".join(f"`{name}`" for name in answer.to.split(", "))
        case NotNeeded():
            return page.words["not_needed_word"]
        case Refused():
            return page.words["refused_word"]
        case _:
            raise TypeError(answer)


def note_of(page: Page, answer: Answer) -> str:
    """The note in the page's language, with what passes of the refused ones."""
    english = {Same: "note", Translated: "note", NotNeeded: "why", Refused: "instead"}[type(answer)]
    note = answer.zh if page.is_chinese else getattr(answer, english)
    if isinstance(answer, Refused):
        values = [show(page, value) for value in answer.harmless if value not in (None, False, "", [])]
        if values:
            note += ("；" if page.is_chinese else "; ") + page.words["passes"].format(values=", ".join(values))
    return note.replace("|", "\\|")


def show(page: Page, value: Any) -> str:
    if value is None or value in ("", []):
        return page.words["unset"]
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`{' '.join(str(part) for part in value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def default_of(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


if __name__ == "__main__":
    sys.exit(main())

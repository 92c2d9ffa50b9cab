"""From raw values to the speed table: ratios within a round, their medians, and whether they are good enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.axes import Log, median


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `value` and `reference` are (axis, engine, metric).

    Judged is `median(value / (factor × reference + plus))` against 1 and, for the aim, `median(value / reference)`
    against `aim`; without a reference the value itself against `least` and `aim`.
    """

    title: str
    axis: str
    metric: str
    engine: str
    reference: str  # the other engine, or "" for an absolute
    least: float
    aim: float | None = None
    plus: float = 0.0  # the limit is least × reference + plus
    strict: bool = False  # below, not at
    unit: str = "ms"
    form: str = "{:.2f}"

    @property
    def wanted(self) -> str:
        """The limit in words."""
        if not self.reference:
            return f"{'<' if self.strict else '≤'} {self.least:g} {self.unit}".rstrip()
        plus = f" + {self.plus:g} {self.unit}" if self.plus else ""
        return f"{'<' if self.strict else '≤'} {self.least:g} × {self.reference}{plus}"

    @property
    def aimed(self) -> str:
        """The aim in words."""
        if self.aim is None:
            return ""
        return f"{self.aim:g} ×" if self.reference else f"{self.aim:g} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Result:
    """A row with what was measured."""

    row: Row
    value: float
    reference: float | None
    ratio: float | None
    spread: tuple[float, float]
    rounds: int
    verdict: str


def lag_rows(engine: str, reference: str = "floor") -> list[Row]:
    """The lone save."""
    rows = []
    for style, words in (("inplace", "in place"), ("rename", "by rename")):
        rows += [
            Row(f"lag {words}, p50", "lag", f"{style} p50 ms", engine, reference, 2.5, 1.3),
            Row(f"lag {words}, p95", "lag", f"{style} p95 ms", engine, reference, 3, 1.3),
            Row(f"CPU a save {words}", "lag", f"{style} cpu ms", engine, reference, 3, 1.5),
        ]
    return rows


def speed_rows(engine: str, node: str, log: Log) -> list[Row]:
    """The table for one body; `node` is the axis of the large tree."""
    small = next((who for axis, who, *_ in log.rows if axis == "scale" and who.startswith(f"{engine} at ")), "")
    return [
        *lag_rows(engine),
        Row("burst, 2,000 files", "burst", "ms", engine, "floor", 1.5, 1.0, plus=60, form="{:.0f}"),
        Row("burst, 2,000 files", "burst", "ms", engine, "rsync", 1.0, strict=True, form="{:.0f}"),
        Row("first copy", node, "first copy s", engine, "cp and rsync", 1.0, 0.65, unit="s"),
        Row("restart, 60 changes", node, "restart s", engine, "cp and rsync", 1.0, 0.5, unit="s"),
        Row("idle, wake-ups", node, "idle wake-ups", engine, "", 0, unit="", form="{:.0f}"),
        Row("idle, CPU", node, "idle cpu ms", engine, "", 1, strict=True),
        Row("memory, PSS", node, "pss MiB", engine, "", 70, 45, unit="MiB", form="{:.1f}"),
        Row("3 × the files, first copy", "scale", "first copy s", engine, small, 3.3, unit="s"),
        Row("3 × the files, restart", "scale", "restart s", engine, small, 3.3, unit="s"),
        Row("3 × the files, memory", "scale", "pss MiB", engine, small, 3.3, unit="MiB", form="{:.1f}"),
        Row("memory an entry", "scale", "bytes an entry", engine, "", 250, unit="bytes", form="{:.0f}"),
    ]


def judge(log: Log, row: Row) -> Result | None:
    """Compare within rounds. None when nothing was measured."""
    values = log.rounds(row.axis, row.engine, row.metric)
    if not values:
        return None
    if not row.reference:
        value = median(list(values.values()))
        good = value < row.least if row.strict else value <= row.least
        aim = row.aim is not None and value <= row.aim
        spread = (min(values.values()), max(values.values()))
        return Result(row, value, None, None, spread, len(values), verdict(good, aim))
    others = log.rounds(row.axis, row.reference, row.metric)
    both = sorted(values.keys() & others.keys())
    if not both:
        return None
    ratios = [values[r] / others[r] if others[r] else float("inf") for r in both]
    shares = [values[r] / (row.least * others[r] + row.plus) if others[r] or row.plus else float("inf") for r in both]
    good = median(shares) < 1 if row.strict else median(shares) <= 1
    aim = row.aim is not None and median(ratios) <= row.aim
    return Result(
        row,
        median([values[r] for r in both]),
        median([others[r] for r in both]),
        median(ratios),
        (min(ratios), max(ratios)),
        len(both),
        verdict(good, aim),
    )


def ratio_text(ratio: float) -> str:
    """A ratio to show; to a reference of nothing there is none."""
    return "—" if ratio == float("inf") else f"{ratio:.2f}"


def verdict(good: bool, aim: bool) -> str:
    """One word."""
    return ("pass, aim" if aim else "pass") if good else "MISS"


def render(rows: list[Row], log: Log, failed: Callable[[Row], str]) -> str:
    """The table as Markdown."""
    head = ("axis", "measured", "reference", "ratio (lowest … highest, rounds)", "at least", "aim", "verdict")
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        result = judge(log, row)
        if result is None:
            cells = (
                row.title,
                failed(row) or "not measured",
                "",
                "",
                row.wanted,
                row.aimed,
                "MISS" if failed(row) else "—",
            )
        else:
            unit = f" {row.unit}".rstrip()
            low, high = result.spread
            spread = f"({ratio_text(low)} … {ratio_text(high)}, {result.rounds})"
            cells = (
                row.title,
                row.form.format(result.value) + unit,
                "" if result.reference is None else row.form.format(result.reference) + unit,
                spread if result.ratio is None else f"{ratio_text(result.ratio)} {spread}",
                row.wanted,
                row.aimed,
                result.verdict,
            )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(align(lines)) + "\n"


def align(lines: list[str]) -> list[str]:
    """Pad the cells so that the table reads well as plain text too."""
    cells = [line.strip("|").split("|") for line in lines]
    widths = [max(len(row[i].strip()) for j, row in enumerate(cells) if j != 1) for i in range(len(cells[0]))]
    out = []
    for index, row in enumerate(cells):
        padded = ["-" * w if index == 1 else cell.strip().ljust(w) for cell, w in zip(row, widths, strict=True)]
        out.append("| " + " | ".join(padded) + " |")
    return out

"""A result as rows of text: one form for the terminal and for the README."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .generation.rows import Row
from .shapes import IMAGE_TYPES
from .turns import STEADY, UNSTEADY, ratio_text


@dataclass(frozen=True)
class TextTable:
    """Cells, and the words around them. The first column is left-aligned, the others right."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    caption: str

    def markdown(self) -> str:
        """As a README shows it."""
        lines = ["| " + " | ".join(self.columns) + " |", "|---" + "|---:" * (len(self.columns) - 1) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join([f"**{self.title}**", "", *lines, "", self.caption, ""])

    def print(self) -> None:
        """To the terminal."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title=self.title, caption=self.caption, caption_justify="left")
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="right" if i else "left")
        for row in self.rows:
            table.add_row(*row)
        Console().print(table)


def make_table(result: dict[str, Any]) -> TextTable:
    """The table of a result."""
    return _MAKERS[result["kind"]](result)


def milliseconds(value: float) -> str:
    """Three digits at least, and never a fraction of a microsecond."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _title(result: dict[str, Any], text: str) -> str:
    return f"{result['name']} ({result['model']['parameters'] / 1e6:.0f} M parameters, random weights): {text}"


def _caption(result: dict[str, Any], text: str, rows: list[list[str]]) -> str:
    machine, engines = result["machine"], result["engines"]
    versions = {
        "torch": machine["torch"],
        "Transformers": machine["transformers"],
        "optimum_int8": machine["optimum_int8"],
    }
    for engine in engines.values():
        versions |= {k: v for k, v in engine.get("versions", {}).items() if v and engine["status"] == "ok"}
    parts = [
        text,
        f"Measured on {machine['cpu']}, {machine['cores']} cores, {machine['isa_used']}, {result['settings']['threads']} "
        f"threads; load average at the start {machine['load_average']}.",
        f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}; commit {machine['commit']}.",
    ]
    if any(UNSTEADY in cell for row in rows for cell in row):
        unsteady = f"{UNSTEADY.capitalize()}: the quartiles of this ratio are more than {STEADY} times apart, so they stand in its place."
        parts.insert(1, unsteady)
    skipped = [f"{e['title']} ({e['reason']})" for e in engines.values() if e["status"] == "skipped"]
    return " ".join(parts + ([f"Left out: {'; '.join(skipped)}."] if skipped else []))


def _running(result: dict[str, Any]) -> dict[str, str]:
    """Titles of the engines other than ours that were timed at least once."""
    base = result["baseline"]
    names = [n for n in result["engines"] if n != base and any(n in row["engines"] for row in result["rows"])]
    return {name: result["engines"][name]["title"] for name in names}


def _latency(result: dict[str, Any]) -> TextTable:
    data, title = result["rows"], result["engines"][result["baseline"]]["title"]
    rows = [[title, *(f"{milliseconds(row['baseline_ms'])} ms" for row in data)]]
    for name, other in _running(result).items():
        found = [row["engines"].get(name) for row in data]
        rows.append([other, *(f"{milliseconds(f['ms'])} ms ({ratio_text(f)})" if f else "" for f in found)])
    limits = [row["limit"] for row in data]
    rows.append(["limit", *(f"{milliseconds(limit['floor_ms'])} ms" if limit else "" for limit in limits)])
    rows.append(["reached by the first", *(f"{limit['share']:.0%}" if limit else "" for limit in limits)])
    columns = [
        "batch x pixels" if result["model"].get("model_type") in IMAGE_TYPES else "batch x tokens",
        *(row["shape"] for row in data),
    ]
    text = "Medians; in brackets, how many times longer than the first line, from adjacent turns of one run."
    limits = result["limits"]
    if "reason" in limits:
        text += f" No limit: {limits['reason']}."
    else:
        text += (
            f" Limit: INT8 multiply-adds at {limits['int8_ops'] / 1e12:.2f} TOPS or one reading of the weights at "
            f"{limits['read_bytes'] / 1e9:.1f} GB/s, both measured in the same run."
        )
    return TextTable(_title(result, "latency"), columns, rows, _caption(result, text, rows))


def _lengths(result: dict[str, Any]) -> TextTable:
    titles = {result["baseline"]: result["engines"][result["baseline"]]["title"], **_running(result)}
    columns = ["tokens", *(title for name in titles.values() for title in (name, "per token"))]
    rows = []
    for row in result["rows"]:
        found = [row["baseline_ms"] if name == result["baseline"] else row["engines"][name]["ms"] for name in titles]
        cells = [text for ms in found for text in (f"{milliseconds(ms)} ms", f"{ms / row['tokens']:.3f}")]
        rows.append([str(row["tokens"]), *cells])
    cliffs = "; ".join(
        f"{titles[n]}: {c['over_longer']:.2f} times the cheapest longer one (at {c['at']} tokens), "
        f"{c['over_neighbours']:.2f} times the line between its neighbours (at {c['at_neighbours']})"
        for n, c in result["cliffs"].items()
    )
    text = f"Medians, one sequence, every round through all lengths; per token in milliseconds. Worst length: {cliffs}."
    return TextTable(_title(result, "latency by length"), columns, rows, _caption(result, text, rows))


def _ragged(result: dict[str, Any]) -> TextTable:
    row = result["rows"][0]
    rows = [
        [result["engines"][name]["title"], f"{milliseconds(found['first_ms'])} ms", f"{milliseconds(found['ms'])} ms",
         ratio_text(found, "{:.0%}")]
        for name, found in row["engines"].items()
    ]  # fmt: skip
    text = f"Lengths spread evenly; {row['token_share']:.0%} of the tokens are real. Medians of alternating turns."
    columns = ["engine", "full batch", row["shape"], "of full"]
    return TextTable(_title(result, "a batch of mixed lengths"), columns, rows, _caption(result, text, rows))


def _scaling(result: dict[str, Any]) -> TextTable:
    columns = ["batch x tokens", "engine", "1 thread", "2 threads", "2 processes"]
    rows = []
    for row in result["rows"]:
        for name, found in row["engines"].items():
            cells = [row["shape"], result["engines"][name]["title"]]
            for mode in result["settings"]["modes"]:
                gain = found["gain"].get(mode)
                extra = [f"{gain:.2f} of 1 thread"] if gain else []
                extra += [f"ours {ratio_text(found[mode])}"] if "ratio" in found[mode] else []
                cells.append(f"{found[mode]['sequences_per_s']:.1f}/s" + (f" ({', '.join(extra)})" if extra else ""))
            rows.append(cells)
    text = "Sequences per second, calls back to back; two processes of one thread each, on cores of their own, serve at once."
    return TextTable(_title(result, "scaling"), columns, rows, _caption(result, text, rows))


def _generation(result: dict[str, Any]) -> TextTable:
    notes = Footnotes()
    titles = {result["baseline"]: result["engines"][result["baseline"]]["title"], **_running(result)}
    rows = [
        [_row_label(row), *(_generation_cell(result, row, name, notes) for name in titles)] for row in result["rows"]
    ]
    text = (
        "Tokens per second: of the prompt (prefill), of a step (decode), or of all new ones (generate, the prompt included; 32 where no "
        "number is told). Medians; in brackets, how many times longer than the first column, from adjacent turns of one run."
    )
    limits = result["limits"]
    if "read_bytes" in limits:
        text += (
            " Percent: bytes of the weights of a step over its time, as a share of the bandwidth of memory measured in the same run "
            f"({limits['read_bytes'] / 1e9:.1f} GB/s)."
        )
    if result["settings"].get("disturbed"):
        text += f" In some turns other processes had up to {result['settings']['disturbed']:.0%} of the cores."
    return TextTable(
        _title(result, "generation"), ["", *titles.values()], rows, _caption(result, text + notes.text(), rows)
    )


class Footnotes:
    """Remarks beside figures: a letter in the cell, the words below."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def mark(self, remark: str) -> str:
        """The mark of a remark, as ` (a)`; nothing where there is none."""
        if not remark:
            return ""
        letter = self._letters.setdefault(remark, chr(ord("a") + len(self._letters)))
        return f" ({letter})"

    def text(self) -> str:
        """All remarks with their letters."""
        return "".join(f" ({letter}) {remark}." for remark, letter in self._letters.items())


def _row_label(row: dict[str, Any]) -> str:
    shape = row["shape"]
    described = Row.parse(shape if ":" in shape else f"generate:{shape}")  # results from before there were kinds
    beams = f", {described.beams} beams" if described.beams > 1 else ""
    longer = f", {described.longer} new tokens" if described.longer else ""
    return f"{described.kind}, batch {described.batch}, context {described.context}{beams}{longer}"


def _share_of_bandwidth(result: dict[str, Any], name: str, milliseconds: float) -> float:
    read = result["limits"]["step_weights"] * result["engines"][name]["bytes_per_weight"]
    return read / (milliseconds / 1e3) / result["limits"]["read_bytes"]


def _generation_cell(result: dict[str, Any], row: dict[str, Any], name: str, notes: Footnotes) -> str:
    if name == result["baseline"]:
        found = {"ms": row["baseline_ms"]}
    elif name in row["engines"]:
        found = row["engines"][name]
    else:
        return "-" + notes.mark(row.get("left_out", {}).get(name, ""))
    text = f"{row['tokens'] / found['ms'] * 1e3:.1f}/s"
    if "ratio" in found:
        text += f" ({ratio_text(found)})"
    if row.get("kind") == "decode":
        text += f", {_share_of_bandwidth(result, name, found['ms']):.0%}"
    return text + notes.mark(found.get("remarks", ""))


_MAKERS = {"latency": _latency, "lengths": _lengths, "ragged": _ragged, "scaling": _scaling, "generation": _generation}

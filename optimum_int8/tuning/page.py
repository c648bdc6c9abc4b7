"""The sensitivity report for people: one picture and one page that holds it. Needs matplotlib, the extra `report`."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError
from .distribution import Distribution
from .report import Fallback, TuningReport
from .sensitivity import Sensitivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE = "sensitivity.html"
PICTURE = "sensitivity.png"
BARS = 24
"""Sites in the picture; the page lists all of them."""

HISTOGRAMS = 12
COLUMNS = 3
INSIDE = "#4878a8"
CLIPPED = "#d1495b"
END = "#333333"
DOT = "#e09f3e"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }
img { max-width: 100% } table { border-collapse: collapse; width: 100% } th, td { padding: .25rem .6rem; text-align: right }
th { border-bottom: 2px solid #999 } td { border-bottom: 1px solid #ddd } th:first-child, td:first-child { text-align: left }
td:first-child { font-family: ui-monospace, monospace; font-size: 13px } .bar { background: linear-gradient(#4878a855, #4878a855) no-repeat }
"""


def save_report(
    rows: Sequence[Sensitivity], folder: str | Path, title: str, tuning: TuningReport | None = None
) -> list[Path]:
    """Write `sensitivity.html` and `sensitivity.png` into a folder, which is made when missing.

    Raises:
        ConfigError: matplotlib is not installed, no rows, or the folder cannot be written.
    """
    page, picture = render_page(rows, title, tuning)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PICTURE).write_bytes(picture)
        (folder / PAGE).write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write the sensitivity report to {str(folder)!r}: {error}") from error
    return [folder / PAGE, folder / PICTURE]


def render_page(rows: Sequence[Sensitivity], title: str, tuning: TuningReport | None = None) -> tuple[str, bytes]:
    """The page, complete in itself, and the picture in it as PNG. Raises `ConfigError` as `save_report`."""
    if not rows:
        raise ConfigError("there is no site to report on; expected the result of measure_sensitivity")
    picture = _picture(rows, title)
    image = base64.b64encode(picture).decode()
    parts = [
        f"<!doctype html><meta charset='utf-8'><title>{escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(title)}</h1>",
        "<p>Model error: relative error of the model's outputs when this site alone is INT8. Site error: that of the site's own output, "
        "each channel relative to its spread. Clipped: values outside the calibrated range.</p>",
        _tuning(tuning) if tuning else "",
        f"<img alt='errors of the sites, and histograms of what the worst ones quantize' src='data:image/png;base64,{image}'>",
        _table(rows),
    ]
    return "\n".join(part for part in parts if part) + "\n", picture


def _tuning(report: TuningReport) -> str:
    tables = [_fallbacks("left in FP32", report.fp32), _fallbacks("attention in bfloat16", report.bfloat16)]
    return f"<h2>Accuracy budget</h2><p>{escape(report.verdict())}</p>" + "".join(tables)


def _fallbacks(what: str, sites: Sequence[Fallback]) -> str:
    cells = [
        [
            site.name,
            site.kind,
            f"{site.error:.2%}",
            f"{site.macs:.2%}",
            f"{site.size_mb:+.2f} MB",
            f"{site.milliseconds:+.3f} ms",
        ]
        for site in sites
    ]
    heads = [what, "kind", "error alone in INT8", "multiply-adds", "size", "time per call"]
    return _html_table(heads, cells) if cells else ""


def _table(rows: Sequence[Sensitivity]) -> str:
    heads = ["site", "kind", "model error", "site error", "multiply-adds", "range", "clipped"]
    worst = max(row.error for row in rows) or 1.0
    cells = []
    widths = []
    for row in rows:
        found = (row.distributions or {}).items()
        ranges = ", ".join(f"{d.range[0]:.3g} to {d.range[1]:.3g}" if d.range else "per row" for _, d in found)
        clipped = ", ".join(f"{d.clipped():.3%}" for _, d in found if d.range)
        error = "not measured" if row.model_error is None else f"{row.model_error:.3%}"
        cells.append([row.name, row.kind, error, f"{row.site_error:.3%}", f"{row.macs:.2%}", ranges, clipped])
        widths.append(row.error / worst)
    return f"<h2>All {len(rows)} sites</h2>" + _html_table(heads, cells, widths)


def _html_table(heads: list[str], cells: list[list[str]], widths: Sequence[float] = ()) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"]
    for number, row in enumerate(cells):
        style = f" class='bar' style='background-size: {widths[number]:.1%} 100%'" if len(widths) else ""
        lines.append(f"<tr><td{style}>" + "</td><td>".join(escape(cell) for cell in row) + "</td></tr>")
    return "\n".join(lines) + "\n</table>"


def _picture(rows: Sequence[Sensitivity], title: str) -> bytes:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("the sensitivity report needs matplotlib: pip install 'optimum-int8[report]'") from error
    shown = [row for row in rows if row.error > 0][:BARS] or list(rows[:1])
    panels = [panel for row in rows if (panel := _most_spread(row)) is not None][:HISTOGRAMS]
    lines = -(-len(panels) // COLUMNS)
    heights = [1.3 + 0.26 * len(shown), 0.5 + 2.4 * lines] if lines else [1.3 + 0.26 * len(shown)]
    figure = Figure(figsize=(14, sum(heights)), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13)
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_errors(parts[0].subplots(), shown, len(rows))
    if lines:
        parts[1].suptitle(
            "What the worst sites quantize: of each, the input that spreads most. Dashed: ends of the range; red: clipped",
            fontsize=11,
        )
        places = parts[1].subplots(lines, COLUMNS, squeeze=False).flatten()
        for place, panel in zip(places, panels, strict=False):
            _draw_histogram(place, *panel)
        for place in places[len(panels) :]:
            place.set_axis_off()
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _most_spread(row: Sensitivity) -> tuple[str, str, Distribution] | None:
    """The input of a site whose largest value is furthest beyond the usual ones."""
    found = [(d.spread(), key, d) for key, d in (row.distributions or {}).items() if d.histogram.total]
    _, key, distribution = max(found, default=(0.0, "", None), key=lambda item: item[0])
    return None if distribution is None else (row.name, key, distribution)


def _draw_errors(axes: Axes, rows: Sequence[Sensitivity], total: int) -> None:
    places = np.arange(len(rows))[::-1]
    axes.barh(
        places, [row.error for row in rows], color=INSIDE, height=0.7, label="model error, this site alone in INT8"
    )
    axes.plot(
        [row.site_error for row in rows], places, "o", color=DOT, markersize=5, label="error of the site's own output"
    )
    axes.set_yticks(places, [f"{row.name}  [{row.kind}]" for row in rows], fontsize=8, family="monospace")
    axes.set_xscale("log")
    axes.set_xlabel("relative error", fontsize=9)
    axes.set_title(f"The {len(rows)} worst of {total} sites", fontsize=11, loc="left")
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8, loc="lower right")
    _open_frame(axes)


def _draw_histogram(axes: Axes, name: str, key: str, distribution: Distribution) -> None:
    edges, shares = distribution.pieces()
    middles = (edges[:-1] + edges[1:]) / 2
    low, high = distribution.range or (edges[0], edges[-1])
    outside = (middles < low) | (middles > high)
    axes.set_yscale("log")
    # an outline for each color: a patch for each bar takes seconds a page
    for part, color in ((~outside, INSIDE), (outside, CLIPPED)):
        axes.stairs(np.where(part, shares, np.nan), edges, fill=True, color=color)
    axes.set_ylim(bottom=shares[shares > 0].min() / 2)
    for end in distribution.range or ():
        axes.axvline(end, color=END, linewidth=1, linestyle="--")
    clipped = "range per row" if distribution.range is None else f"{distribution.clipped():.3%} clipped"
    short = name if len(name) <= 44 else "…" + name[-43:]
    axes.set_title(f"{short}\n{key}: {clipped}", fontsize=8, loc="left")
    axes.tick_params(labelsize=7)
    axes.set_ylabel("share of values", fontsize=7)
    _open_frame(axes)


def _open_frame(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

"""Configurations with sites out of INT8, and what the report says of those sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..config import Int8Config
from ..nn import Bfloat16Attention
from ..prepare import Prepared
from ..sites import KINDS
from .counterparts import Counterparts
from .report import Fallback, costs
from .sensitivity import Sensitivity, measure_sensitivity


def without(config: Int8Config, sites: Iterable[Sensitivity]) -> Int8Config:
    """The configuration with `sites` left in FP32."""
    names: dict[str, tuple[str, ...]] = {}
    for site in sites:
        setting = KINDS[site.kind].excluded_by
        names[setting] = (*names.get(setting, getattr(config, setting)), site.name)
    return replace(config, **names)  # type: ignore[arg-type]


def explain(
    start: Int8Config,
    end: Int8Config,
    prepared: Callable[[Int8Config], Prepared],
    data: Sequence[Any],
    rows: Iterable[Sensitivity],
) -> dict[str, list[Fallback]]:
    """The sites that a search took out of INT8, by the names of `TuningReport`'s lists.

    Args:
        start, end: the configurations that the search began and ended with.
        prepared: gives the calibrated float model of a configuration.
        rows: what is known of the sites; the others are measured on the first batch.
    """
    names = [n for n in end.exclude if n not in start.exclude]
    names += [n for n in end.exclude_attention if n not in start.exclude_attention]
    found: dict[str, list[str]] = {"fp32": names, "bfloat16": []}
    if end.attention != start.attention:  # as a remedy: all cores at once
        end, dtype = replace(end, attention=start.attention), "bfloat16" if end.attention == "bfloat16" else "fp32"
        cores = [name for name, kind in prepared(end).sites.kinds() if not kind.takes_place]
        found[dtype] += [name for name in cores if name not in names]
    wanted = [name for some in found.values() for name in some]
    if not wanted:
        return {}
    ready = prepared(end)
    known = {row.name: row for row in rows if row.kind == ready.sites.int8.get(row.name)}
    if any(name not in known for name in wanted):
        more = measure_sensitivity(ready, data[:1], alone=False, progress=False)
        known = {**{row.name: row for row in more}, **known}
    return {
        "fp32": costs(Counterparts(ready), data[0], found["fp32"], known),
        "bfloat16": costs(Counterparts(ready, Bfloat16Attention()), data[0], found["bfloat16"], known),
    }

"""`find_functional`: the parameters of other people's modules that `F.linear` or a convolution reads, found by tracing a call."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

from torch import nn

from ...nn.functional_weight import FUNCTIONAL
from .attribution import READ_OTHERWISE, ModelSites, Site
from .call_place import OPS, running
from .trace_ops import OpTracer


def find_functional(model: nn.Module, call: Callable[[], Any]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What `expose` takes, and site name to reason for what cannot become INT8.

    Args:
        call: calls `model`, once or more often.
    """
    sites = ModelSites(model)
    found: dict[str, Site] = {}

    def on_op(func: Any, args: Any, kwargs: Any, frame: FrameType) -> None:
        now = running(frame)
        if now is None or now.modules[0] is not model:
            return
        op = OPS.get(func, "")
        here = sites.find(op, func, args, kwargs, now) if op in FUNCTIONAL else []
        sites.note_reads(args, here)
        found.update({site.name: site for site, _ in here if site.functional is not None})

    with OpTracer(on_op):
        call()
    for site in found.values():
        if id(site.parameter) in sites.read:
            site.why_not = READ_OTHERWISE
    wanted = {name: site.functional for name, site in found.items() if site.functional and not site.why_not}
    return wanted, {name: site.why_not for name, site in found.items() if site.why_not}

"""`find_functional`: the parameters of other people's modules that `F.linear` or a convolution reads, found by listening to a call."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import Any

from torch import nn

from .calls import OPS, running
from .functional import FUNCTIONAL
from .heard import READ_OTHERWISE, ModelSites, Site
from .listen import Listener


def find_functional(model: nn.Module, call: Callable[[], Any]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """What `expose` takes, and site name to reason for what cannot become INT8.

    Args:
        call: calls `model`, once or more often.
    """
    sites = ModelSites(model)
    found: dict[str, Site] = {}

    def heard(func: Any, args: Any, kwargs: Any, frame: FrameType) -> None:
        now = running(frame)
        if now is None or now.modules[0] is not model:
            return
        op = OPS.get(func, "")
        here = sites.find(op, func, args, kwargs, now) if op in FUNCTIONAL else []
        sites.note_reads(args, here)
        found.update({site.name: site for site, _ in here if site.functional is not None})

    with Listener(heard):
        call()
    for site in found.values():
        if id(site.parameter) in sites.read:
            site.why_not = READ_OTHERWISE
    wanted = {name: site.functional for name, site in found.items() if site.functional and not site.why_not}
    return wanted, {name: site.why_not for name, site in found.items() if site.why_not}

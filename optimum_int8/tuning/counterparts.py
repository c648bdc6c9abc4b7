"""The float model next to the INT8 counterpart of each site: what each site computes both ways, on the same input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..nn import Int8Module
from ..prepare import Prepared
from ..remedies import evaluating
from ..sites import Compute, Visit

__all__ = ["Compute", "Counterparts", "Visit"]


class Counterparts:
    """INT8 counterparts of all sites of a prepared model; the model stays float.

    Args:
        instead: computes the attention cores in place of float32.
    """

    def __init__(self, prepared: Prepared, instead: Int8Module | None = None) -> None:
        self.instead = instead
        self.model = prepared.model
        self.kinds = dict(prepared.sites.kinds())
        self.int8: dict[str, Int8Module] = {name: prepared.counterpart(name) for name in self.kinds}

    @contextlib.contextmanager
    def visited(self, visit: Visit) -> Iterator[None]:
        """Within, every call of a site is handed to `visit`. Evaluation mode, no gradients; all is undone at the end."""
        with evaluating(self.model), contextlib.ExitStack() as stack:
            for kind in dict.fromkeys(self.kinds.values()):
                own = {name: self.int8[name] for name, other in self.kinds.items() if other is kind}
                stack.enter_context(kind.visited(self.model, own, visit, self.instead))
            yield

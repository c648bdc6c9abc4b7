"""`LocalMetric`: the base of this package's metrics, an `evaluate.EvaluationModule` without downloads."""

from __future__ import annotations

import os
from typing import Any

from .extra import datasets, evaluate


class LocalMetric(evaluate.EvaluationModule):
    """A metric computed in memory by one function. Subclasses fill `summary`, `value_type` and `_compute`."""

    summary = ""
    value_type = "int64"

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("keep_in_memory", True)
        super().__init__(**kwargs)

    def _info(self) -> evaluate.EvaluationModuleInfo:
        features = datasets.Features({name: datasets.Value(self.value_type) for name in ("predictions", "references")})
        return evaluate.MetricInfo(description=self.summary, citation="", features=features, inputs_description="")

    def _build_data_dir(self) -> str:
        # The parent class makes a cache folder even in memory; a read-only home must not stop an evaluation.
        if self.keep_in_memory:
            return os.path.join(self._data_dir_root, self.name, self.config_name)
        return super()._build_data_dir()

    def _download_and_prepare(self, dl_manager: Any) -> None:
        """Nothing to download."""

"""Trials: what was tried and what it gave, in a JSON file that outlives the process."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..config import Int8Config
from ..errors import ConfigError
from ..remedies.flow import tensors_of

logger = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True)
class Trial:
    """One model that was made and measured.

    Attributes:
        what: the step in words: `"as configured"`, `"observer=mse"`, `"3 sites in FP32"`.
        config: its `Int8Config.to_dict()`.
        value: of the metric.
        loss: relative to FP32; None when FP32 is 0 and this is not.
        seconds: it took to make and to measure.
    """

    what: str
    config: dict[str, Any]
    value: float
    loss: float | None
    seconds: float

    @property
    def loss_or_inf(self) -> float:
        """The loss, infinite where it has no meaning."""
        return float("inf") if self.loss is None else self.loss


@dataclass
class TrialLog:
    """What was measured for one model, data and configuration; written after every step, to a temporary file that is then renamed.

    Attributes:
        path: None keeps nothing on disk.
        fingerprint: of model, calibration data and configuration; a file with another one is not used.
    """

    path: Path | None
    fingerprint: str
    baseline: float | None = None
    trials: list[Trial] = field(default_factory=list)
    sensitivity: list[dict[str, Any]] | None = None

    @classmethod
    def open(cls, path: str | Path | None, fingerprint: str) -> TrialLog:
        """Go on with the trials in `path`, if there are any of the same fingerprint.

        Raises:
            ConfigError: the file is no log of trials.
        """
        log = cls(None if path is None else Path(path), fingerprint)
        if log.path is None or not log.path.exists():
            return log
        try:
            values = json.loads(log.path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT or values["fingerprint"] != fingerprint:
                logger.warning("%s is of another model, data or configuration; its trials are not used", log.path)
                return log
            log.baseline = values["baseline"]
            log.sensitivity = values["sensitivity"]
            log.trials = [Trial(**trial) for trial in values["trials"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{str(log.path)!r} is no log of trials ({error!r}); delete it, or name another"
            ) from error
        return log

    def find(self, config: Int8Config) -> Trial | None:
        """The trial of this configuration, if it was made."""
        return next((trial for trial in self.trials if trial.config == config.to_dict()), None)

    def write(self) -> None:
        """Raises `ConfigError` when the disk refuses."""
        if self.path is None:
            return
        values = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "baseline": self.baseline,
            "trials": [asdict(trial) for trial in self.trials],
            "sensitivity": self.sensitivity,
        }
        scratch = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
            scratch.replace(self.path)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise ConfigError(f"cannot write the log of trials {str(self.path)!r}: {error}") from error


def fingerprint(model: nn.Module, config: Int8Config, data: Iterable[Any]) -> str:
    """A digest of weights, calibration data and settings; the limits of the search do not count."""
    digest = hashlib.sha256(type(model).__name__.encode())
    settings = {k: v for k, v in config.to_dict().items() if k not in ("max_trials", "timeout")}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    for tensor in tensors_of(list(data)):
        digest.update(repr(tuple(tensor.shape)).encode())
        digest.update(tensor.detach().cpu().double().contiguous().numpy().tobytes())
    return digest.hexdigest()

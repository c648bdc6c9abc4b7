"""Which data a model was calibrated and evaluated on, for its card: only what the datasets themselves tell."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ...hub import CardInfo, card_data

if TYPE_CHECKING:
    import datasets

_HUB_FILE = re.compile(r"hf://datasets/([\w.-]+(?:/[\w.-]+)?)@")


@dataclass(frozen=True)
class DataSource:
    """Where a dataset comes from.

    Args:
        name: its repository on the Hub; None for any other data, whose file names are nobody else's business.
        config: configuration of the repository (`"sst2"` of `"nyu-mll/glue"`).
        split: which split.
        samples: how many examples.
    """

    name: str | None
    config: str | None
    split: str | None
    samples: int

    @classmethod
    def of(cls, dataset: datasets.Dataset) -> DataSource:
        """The source that the files name from which `datasets` built the dataset; selecting and mapping keep it."""
        files = dataset.info.download_checksums or {}
        names = {match[1] for match in map(_HUB_FILE.match, map(str, files)) if match}
        if len(names) != 1:
            return cls(None, None, None, len(dataset))
        config = dataset.info.config_name
        split = None if dataset.split is None else str(dataset.split)
        return cls(names.pop(), None if config == "default" else config, split, len(dataset))

    def __str__(self) -> str:
        return " ".join(part for part in (self.name, self.config, self.split) if part) or "unnamed data"


def complete_data(info: CardInfo, calibration: DataSource | None, evaluation: DataSource | None) -> CardInfo:
    """Fill in the fields of a card that tell of data; what `info` says already stays."""
    if calibration is not None and info.calibration_dataset is None:
        samples = calibration.samples if info.calibration_samples is None else info.calibration_samples
        info = replace(info, calibration_dataset=str(calibration), calibration_samples=samples)
    if evaluation is not None and info.dataset is None:
        info = replace(info, dataset=evaluation.name, dataset_config=evaluation.config, dataset_split=evaluation.split)
    return info


@dataclass(frozen=True)
class Provenance:
    """Which data an INT8 model comes from; None where there was none, or where it is not known.

    Args:
        calibration: what it was calibrated on.
        evaluation: what it was compared with FP32 on, last.
    """

    calibration: DataSource | None = None
    evaluation: DataSource | None = None


def card_facts(base_model: str, provenance: Provenance, told: CardInfo | None = None) -> CardInfo:
    """What the card of an INT8 model says of its origin and data; `told` goes before what is known.

    Args:
        base_model: name or path of the FP32 model.
    """
    info = told or CardInfo(base_model=card_data.base_of(base_model))
    return complete_data(info, provenance.calibration, provenance.evaluation)

"""Load a dataset by what the user names it with: a `datasets.Dataset`, a local path, a name on the Hub."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .readers import READERS, read_file

if TYPE_CHECKING:
    import datasets

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "dev", "valid", "val", "eval", "validation_matched", "test"),
    "test": ("test",),
}
"""Names under which a split is looked for, best first. Without a validation split, evaluation uses the test split."""


def load_dataset(
    source: datasets.Dataset | Mapping[str, datasets.Dataset] | str | Path,
    *,
    split: str = "validation",
    name: str | None = None,
    token: str | None = None,
) -> datasets.Dataset:
    """One split of a dataset, never empty.

    Args:
        source: a `Dataset` (taken as it is); a `DatasetDict`; a file (one of `READERS`; taken as it is);
            a folder written by `save_to_disk`; a folder with one such file per split (`train.tsv`, `dev.tsv`); or the
            name of a dataset on the Hub.
        split: which split, when the source has several; `SPLIT_NAMES` lists the aliases.
        name: configuration of a Hub dataset (`"sst2"` of `"glue"`).
        token: access token for a private Hub dataset.

    Raises:
        DataError: nothing there, unreadable, no such split, or no rows.
    """
    source = as_dataset(source)
    if is_dataset(source):
        dataset = source
        label = "the dataset"
    elif isinstance(source, Mapping):
        dataset = choose_split(source, split, "the dataset")
        label = f"the split {split!r}"
    elif isinstance(source, (str, Path)):
        label = repr(str(source))
        local = _local_path(source)
        dataset = _load_local(local, split) if local else _load_hub(str(source), name, split, token)
    else:
        raise DataError(
            f"a dataset is a datasets.Dataset, a DataFrame, a list of rows, a path or a name; found {type(source).__name__}"
        )
    if len(dataset) == 0:
        raise DataError(f"{label} has no rows; expected at least one example")
    return dataset


def as_dataset(source: Any, rows: int | None = None) -> Any:
    """A `Dataset` of a DataFrame, of rows (mappings with a text or a number for each column), of columns (lists), of texts, or of an
    `IterableDataset`; anything else as it is.

    Args:
        rows: how many rows of an `IterableDataset`; None takes all.

    Raises:
        DataError: rows that are no table.
    """
    make = _maker(source, rows)
    if make is None:
        return source
    from .extra import datasets

    try:
        return make(datasets.Dataset)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:  # pyarrow's own errors derive from these
        raise DataError(
            f"the rows of this {type(source).__name__} are no table: {' '.join(str(error).split())}"
        ) from error


def is_dataset(source: Any) -> bool:
    """Whether it is a `Dataset`; nothing can be one before `datasets` has been imported."""
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(source, datasets.Dataset)


def _maker(source: Any, rows: int | None) -> Callable[[Any], Any] | None:
    """What makes a `Dataset` of `source`, given that class; None leaves the source as it is."""
    first = source[0] if isinstance(source, (list, tuple)) and source else None
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        return lambda dataset: dataset.from_pandas(source, preserve_index=False)
    datasets = sys.modules.get("datasets")
    if datasets is not None and isinstance(source, datasets.IterableDataset):
        return lambda dataset: dataset.from_list(list(source if rows is None else source.take(rows)))
    if isinstance(source, Mapping) and source and all(isinstance(column, (list, tuple)) for column in source.values()):
        return lambda dataset: dataset.from_dict(dict(source))
    if isinstance(first, str):
        return lambda dataset: dataset.from_dict({"text": list(source)})
    if isinstance(first, Mapping) and not any(hasattr(value, "shape") for value in first.values()):
        return lambda dataset: dataset.from_list([dict(row) for row in source])
    return None


def choose_split(splits: Mapping[str, datasets.Dataset], split: str, label: str) -> datasets.Dataset:
    """The split called `split` or by one of its aliases. Raises `DataError` naming those that exist."""
    return splits[_split_name(list(splits), split, label)]


def take(dataset: datasets.Dataset, num_samples: int, seed: int) -> datasets.Dataset:
    """`num_samples` different rows drawn at random, the same for the same `seed`; all rows if there are fewer."""
    if num_samples < 1:
        raise DataError(f"{num_samples} samples asked for; expected at least 1")
    if num_samples >= len(dataset):
        return dataset
    return dataset.shuffle(seed=seed, keep_in_memory=True).select(range(num_samples), keep_in_memory=True)


def _split_name(present: list[str], split: str, label: str) -> str:
    for candidate in (split, *SPLIT_NAMES.get(split, ())):
        if candidate in present:
            return candidate
    raise DataError(f"{label} has no split {split!r}; it has {', '.join(sorted(present)) or 'none'}")


def _local_path(source: str | Path) -> Path | None:
    """The path, if `source` means one. Raises `DataError` when it can only mean one and nothing is there."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    looks_local = isinstance(source, Path) or path.is_absolute() or str(source).startswith((".", "~"))
    if looks_local or path.suffix.lower() in READERS:
        raise DataError(f"no such file or folder: {str(source)!r}")
    return None


def _load_local(path: Path, split: str) -> datasets.Dataset:
    if path.is_file():
        return read_file(path)
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        from .extra import datasets

        try:
            saved = datasets.load_from_disk(str(path))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"cannot read the saved dataset {str(path)!r}: {' '.join(str(error).split())}") from error
        return saved if is_dataset(saved) else choose_split(saved, split, repr(str(path)))
    files = {file.stem: file for file in sorted(path.iterdir()) if file.suffix.lower() in READERS}
    if not files:
        raise DataError(
            f"the folder {str(path)!r} has no data file; expected one per split (train.tsv, dev.tsv; "
            f"{', '.join(READERS)}) or what Dataset.save_to_disk writes"
        )
    return read_file(files[_split_name(list(files), split, repr(str(path)))])


def _load_hub(source: str, name: str | None, split: str, token: str | None) -> datasets.Dataset:
    from .extra import datasets

    where = f"dataset {source!r}" + (f" ({name})" if name else "")
    try:
        present = datasets.get_dataset_split_names(source, name, token=token)
        return datasets.load_dataset(source, name, split=_split_name(present, split, where), token=token)
    except DataError:
        raise
    except Exception as error:  # the Hub client, the builders and pyarrow raise many unrelated types here
        raise DataError(
            f"cannot load the {where}: no such local path, and the Hub gave: {' '.join(str(error).split())}"
        ) from error

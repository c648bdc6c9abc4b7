"""Datasets from files, folders and splits; every way they can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from optimum_int8.errors import DataError
from optimum_int8.evaluation.data import choose_split, load_dataset, take

ROWS = {"sentence": ["good film", "NA", "bad, very bad"], "label": [1, 0, 0]}
WRITERS: dict[str, str] = {
    "data.csv": 'sentence,label\ngood film,1\nNA,0\n"bad, very bad",0\n',
    "data.tsv": "sentence\tlabel\ngood film\t1\nNA\t0\nbad, very bad\t0\n",
    "windows.tsv": "\ufeffsentence\tlabel\r\ngood film\t1\r\nNA\t0\r\nbad, very bad\t0\r\n",
    "data.jsonl": '{"sentence": "good film", "label": 1}\n\n{"sentence": "NA", "label": 0}\n'
    '{"sentence": "bad, very bad", "label": 0}\n',
    "data.json": '{"data": [{"sentence": "good film", "label": 1}, {"sentence": "NA", "label": 0},'
    ' {"sentence": "bad, very bad", "label": 0}]}',
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write


@pytest.mark.parametrize("name", WRITERS)
def test_file(name: str, write: Callable[[str, str], Path]) -> None:
    path = write(name, WRITERS[name])
    assert load_dataset(path).to_dict() == ROWS
    assert load_dataset(str(path)).to_dict() == ROWS


def test_parquet_keeps_class_names(tmp_path: Path) -> None:
    features = datasets.Features({"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["n", "p"])})
    datasets.Dataset.from_dict(ROWS, features=features).to_parquet(str(tmp_path / "data.parquet"))
    loaded = load_dataset(tmp_path / "data.parquet")
    assert loaded.to_dict() == ROWS
    assert loaded.features["label"].names == ["n", "p"]


def test_lone_quotes_in_tsv_are_characters(write: Callable[[str, str], Path]) -> None:
    """A quote at the start of a field would swallow the rows up to the next one."""
    path = write("glue.tsv", 'sentence\tlabel\n" a lone quote\t1\nplain\t0\nends here "\t1\n')
    assert load_dataset(path).to_dict() == {"sentence": ['" a lone quote', "plain", 'ends here "'], "label": [1, 0, 1]}


def test_quoted_tsv(write: Callable[[str, str], Path]) -> None:
    path = write("quoted.tsv", 'sentence\tlabel\n"with\ttab and ""quotes"""\t1\n')
    assert load_dataset(path).to_dict() == {"sentence": ['with\ttab and "quotes"'], "label": [1]}


def test_column_types(write: Callable[[str, str], Path]) -> None:
    dataset = load_dataset(write("t.tsv", "a\tb\tc\td\n1\t1\t1_000\tnan\n-2\t.5e1\t2_000\tinfinity\n"))
    assert dataset.to_dict() == {"a": [1, -2], "b": [1.0, 5.0], "c": ["1_000", "2_000"], "d": ["nan", "infinity"]}


def test_saved_to_disk(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_dict(ROWS)
    dataset.save_to_disk(str(tmp_path / "one"))
    assert load_dataset(tmp_path / "one").to_dict() == ROWS
    datasets.DatasetDict({"train": dataset.select([0]), "dev": dataset.select([1, 2])}).save_to_disk(
        str(tmp_path / "d")
    )
    assert load_dataset(tmp_path / "d", split="train")["label"][:] == [1]
    assert load_dataset(tmp_path / "d", split="validation")["label"][:] == [0, 0]


def test_folder_with_a_file_per_split(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("sentence\tlabel\nx\t1\n")
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\ny\t0\n")
    (tmp_path / "README.md").write_text("not data")
    assert load_dataset(tmp_path, split="train")["sentence"][:] == ["x"]
    assert load_dataset(tmp_path)["sentence"][:] == ["y"]
    with pytest.raises(DataError, match="no split 'test'; it has dev, train"):
        load_dataset(tmp_path, split="test")


def test_dataset_and_dict_are_taken_as_they_are() -> None:
    dataset = datasets.Dataset.from_dict(ROWS)
    assert load_dataset(dataset) is dataset
    assert load_dataset({"train": dataset.select([0]), "validation_matched": dataset}) is dataset


def test_validation_is_preferred_to_test() -> None:
    splits = {name: datasets.Dataset.from_dict({"a": [name]}) for name in ("test", "dev", "train")}
    assert choose_split(splits, "validation", "d")["a"][:] == ["dev"]
    assert choose_split({"test": splits["test"]}, "validation", "d")["a"][:] == ["test"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.tsv", "a\tb\n1\t2\n3\n", r"line 3 of .* has 1 fields; expected 2: a, b"),
        ("t.csv", "a,a\n1,2\n", "repeats a column name"),
        ("t.csv", "", "is empty"),
        ("t.tsv", "a\tb\n", "has no rows"),
        ("t.jsonl", '{"a": 1}\n{"a": \n', r"line 2 of .* is not JSON"),
        ("t.jsonl", '{"a": 1}\n[2]\n', "entry 2 of .* is a list"),
        ("t.jsonl", '{"a": 1}\n{"a": "x"}\n', "do not have the same types"),
        ("t.jsonl", "", "has no rows"),
        ("t.parquet", "not parquet", "as Parquet"),
        ("t.docx", "x", "do not know how to read"),
    ],
)
def test_bad_file(name: str, text: str, message: str, write: Callable[[str, str], Path]) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(write(name, text))


def test_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a\n\xff\xfe\n")
    with pytest.raises(DataError, match="UTF-8"):
        load_dataset(tmp_path / "t.csv")


def test_nothing_there(tmp_path: Path) -> None:
    for source in (tmp_path / "absent", str(tmp_path / "absent"), "./absent", "absent.tsv"):
        with pytest.raises(DataError, match="no such file or folder"):
            load_dataset(source)
    with pytest.raises(DataError, match="no data file; expected one per split"):
        load_dataset(tmp_path)
    with pytest.raises(DataError, match="no such local path, and the Hub gave"):
        load_dataset("nobody/no-such-dataset", name="x")
    with pytest.raises(DataError, match="found int"):
        load_dataset(3)  # type: ignore[arg-type]


def test_empty_dataset() -> None:
    with pytest.raises(DataError, match="has no rows"):
        load_dataset(datasets.Dataset.from_dict({"a": []}))


def test_take_is_reproducible() -> None:
    dataset = datasets.Dataset.from_dict({"a": list(range(100))})
    first = take(dataset, 10, seed=1)["a"][:]
    assert first == take(dataset, 10, seed=1)["a"][:]
    assert first != take(dataset, 10, seed=2)["a"][:]
    assert len(set(first)) == 10
    assert take(dataset, 1000, seed=1) is dataset
    with pytest.raises(DataError, match="at least 1"):
        take(dataset, 0, seed=1)

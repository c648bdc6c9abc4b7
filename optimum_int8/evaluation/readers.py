"""Read one data file into a `datasets.Dataset`. One function per format; `READERS` maps file endings to them.

Tables are read with Python's `csv`, not with pandas, which takes a sentence that reads "NA" for a missing one.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import DataError

if TYPE_CHECKING:
    import datasets


def read_csv(path: Path) -> datasets.Dataset:
    """Comma-separated, first row the column names, `"` quotes a field. Raises `DataError` that names another delimiter."""
    rows = _parse(path, ",", csv.QUOTE_MINIMAL)
    _require_commas(path, rows)
    return _from_rows(path, rows)


_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def _require_commas(path: Path, rows: list[tuple[int, list[str]]]) -> None:
    """Refuse a table whose header another delimiter splits: one column is left, or rows of text with commas are of unequal width."""
    header = ",".join(rows[0][1])
    if len(rows[0][1]) > 1 and all(len(row) == len(rows[0][1]) for _, row in rows):
        return
    for delimiter, words in _OTHER_DELIMITERS.items():
        if len(header.split(delimiter)) > max(1, len(rows[0][1])):
            instead = (
                "name it .tsv"
                if delimiter == "\t"
                else "write it with commas (pandas: to_csv(path, index=False)), or as .jsonl"
            )
            raise DataError(
                f"the fields of {str(path)!r} are separated by {words} ({delimiter!r}); expected commas in a .csv: {instead}"
            )


def read_tsv(path: Path) -> datasets.Dataset:
    """Tab-separated, first row the column names.

    GLUE's files have no quoting, and sentences in them begin with a lone `"`. So quotes are plain characters, unless
    that leaves rows of unequal width, which means that a writer did quote.
    """
    rows = _parse(path, "\t", csv.QUOTE_NONE)
    if any(len(row) != len(rows[0][1]) for _, row in rows):
        quoted = _parse(path, "\t", csv.QUOTE_MINIMAL)
        if all(len(row) == len(quoted[0][1]) for _, row in quoted):
            rows = quoted
    return _from_rows(path, rows)


def read_jsonl(path: Path) -> datasets.Dataset:
    """One JSON object per line."""
    records = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            records.append(_json(path, line, f"line {number} of "))
    return _from_records(path, records)


def read_json(path: Path) -> datasets.Dataset:
    """A list of objects, or an object whose `data` is one; a file with one object per line is read as such.

    SQuAD's articles become one row per question, as the Hub has them.
    """
    text = _text(path)
    try:
        values = json.loads(text)
    except ValueError:
        return read_jsonl(path)
    if isinstance(values, dict) and isinstance(values.get("data"), list):
        values = values["data"]
        if values and all(isinstance(article, dict) and "paragraphs" in article for article in values):
            values = _squad_rows(path, values)
    return _from_records(path, values if isinstance(values, list) else [values])


def read_conll(path: Path) -> datasets.Dataset:
    """CoNLL columns: a word first and its tag last on each line, an empty line between sentences.

    Gives the columns `tokens` and `tags`. Lines of `-DOCSTART-` and of white space alone separate sentences.
    """
    sentences: list[tuple[list[str], list[str]]] = [([], [])]
    for number, text in enumerate(_text(path).split("\n"), start=1):
        line = text.replace("\ufeff", "")  # files that were concatenated have such marks in the middle
        fields = line.split("\t") if "\t" in line.strip() else line.split()
        fields = [field.strip() for field in fields]
        if not any(fields) or fields[0] == "-DOCSTART-":
            sentences.append(([], []))
            continue
        if len(fields) < 2 or not fields[0] or not fields[-1]:
            raise DataError(f"line {number} of {str(path)!r} is {line.strip()!r}; expected a word and its tag")
        sentences[-1][0].append(fields[0])
        sentences[-1][1].append(fields[-1])
    kept = [(words, tags) for words, tags in sentences if words]
    return _from_columns({"tokens": [words for words, _ in kept], "tags": [tags for _, tags in kept]})


def read_parquet(path: Path) -> datasets.Dataset:
    """An Apache Parquet file; class names stored by `datasets` are kept."""
    from .extra import datasets  # before what it depends on

    import pyarrow  # type: ignore[import-untyped]  # isort: skip
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        return datasets.Dataset(pyarrow.parquet.read_table(path))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"cannot read {str(path)!r} as Parquet: {error}") from error


READERS: dict[str, Callable[[Path], datasets.Dataset]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
    ".conll": read_conll,
    ".bio": read_conll,
    ".annotated": read_conll,  # WNUT-17 calls its test file so
}


def read_file(path: Path) -> datasets.Dataset:
    """Read a file by its ending.

    Raises:
        DataError: unknown ending, unreadable or damaged file, rows of unequal width.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"do not know how to read {str(path)!r}; expected a file ending in {', '.join(READERS)}")
    return reader(path)


def _from_columns(columns: dict[str, list[Any]]) -> datasets.Dataset:
    from .extra import datasets

    return datasets.Dataset.from_dict(columns)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {str(path)!r} as UTF-8 text: {error}") from error


def _json(path: Path, text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}{str(path)!r} is not JSON: {error}") from error


def _from_records(path: Path, records: list[Any]) -> datasets.Dataset:
    wrong = next((i for i, record in enumerate(records) if not isinstance(record, dict)), None)
    if wrong is not None:
        kind = type(records[wrong]).__name__
        raise DataError(f"entry {wrong + 1} of {str(path)!r} is a {kind}; expected JSON objects with the same keys")
    names = list(dict.fromkeys(name for record in records for name in record))
    try:
        return _from_columns({name: [record.get(name) for record in records] for name in names})
    except (ValueError, TypeError, OverflowError) as error:  # pyarrow's own errors derive from these
        raise DataError(f"the entries of {str(path)!r} do not have the same types: {_one_line(error)}") from error


def _squad_rows(path: Path, articles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = question.get("answers") or []
                    rows.append(
                        {
                            "id": str(question.get("id", len(rows))),
                            "title": article.get("title", ""),
                            "context": paragraph["context"],
                            "question": question["question"],
                            "answers": {
                                "text": [answer["text"] for answer in answers],
                                "answer_start": [answer["answer_start"] for answer in answers],
                            },
                        }
                    )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"question {len(rows) + 1} of {str(path)!r} is not in SQuAD's layout: {error!r}") from error
    return rows


def _parse(path: Path, delimiter: str, quoting: Literal[0, 3]) -> list[tuple[int, list[str]]]:
    """Line numbers and fields of the rows that are not blank."""
    # splitlines() would also split at U+2028 and the like, which are plain characters in a table.
    lines = _text(path).replace("\r\n", "\n").split("\n")
    previous = csv.field_size_limit(sys.maxsize)
    try:
        reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, quoting=quoting)
        rows = [(reader.line_num, row) for row in reader if any(row)]
    except csv.Error as error:
        raise DataError(f"cannot read {str(path)!r} as a table: {error}") from error
    finally:
        csv.field_size_limit(previous)
    if not rows:
        raise DataError(f"{str(path)!r} is empty; expected a first row with column names, then one row per example")
    return rows


def _from_rows(path: Path, rows: list[tuple[int, list[str]]]) -> datasets.Dataset:
    header = [name.strip() for name in rows[0][1]]
    if len(set(header)) != len(header):
        raise DataError(f"the first row of {str(path)!r} repeats a column name: {', '.join(header)}")
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise DataError(
                f"line {line} of {str(path)!r} has {len(row)} fields; expected {len(header)}: {', '.join(header)}"
            )
    return _from_columns({name: _typed([row[i] for _, row in rows[1:]]) for i, name in enumerate(header)})


def _typed(values: list[str]) -> list[Any]:
    """A column as integers or floats when all of it reads so, else as it is."""
    # Patterns, because int() and float() also read "1_000", "nan" and "infinity".
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", value) for value in values):
        return [int(value) for value in values]
    if all(re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", value) for value in values):
        return [float(value) for value in values]
    return values


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())

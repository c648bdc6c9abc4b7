"""The description of the machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from optimum_int8.evaluation import describe_machine
from optimum_int8.evaluation.machine import git_commit, package_version, usable_cores


def test_describes_this_machine() -> None:
    machine = describe_machine()
    assert json.loads(json.dumps(machine)) == machine
    assert machine["threads"] == torch.get_num_threads()
    assert machine["torch"] == torch.__version__
    assert machine["isa_used"] in machine["isa_found"] or machine["isa_used"] == "python"
    assert machine["cpu"]
    assert set(machine) == {
        "cpu", "cores", "platform", "isa_found", "isa_used", "threads",
        "python", "torch", "transformers", "optimum_int8", "commit",
    }  # fmt: skip


def test_usable_cores_are_at_least_one() -> None:
    assert usable_cores() >= 1


def test_package_version() -> None:
    assert package_version("torch")
    assert package_version("no-such-distribution-anywhere") is None


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def test_commit(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    try:
        git(tmp_path, "init")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "tag", "-a", "v1", "-m", "v1")  # the commit is wanted, not the tag's name
    commit = git_commit(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "file").write_text("two")
    assert git_commit(tmp_path) == f"{commit}-dirty"
    (tmp_path / "site-packages").mkdir()
    assert git_commit(tmp_path / "site-packages") is None

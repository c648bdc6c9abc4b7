"""Fixtures for all tests. No test talks to the network: the Hub is a local one, see hub/server.py."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.hub.server import Hub

# The tests are those of the checkout they lie in, here and in child processes: the finder of an editable installation, which may be
# of another checkout, would come before PYTHONPATH.
NO_FINDER = (
    'import sys; sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "ScikitBuildInplaceFinder"]'
)
sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != "ScikitBuildInplaceFinder"]
SITE = Path(tempfile.mkdtemp(prefix="optimum-int8-site-"))
(SITE / "sitecustomize.py").write_text(NO_FINDER + "\n")
atexit.register(shutil.rmtree, SITE, ignore_errors=True)

# Before anything imports Transformers or datasets, which read these once.
LOCAL_HUB = Hub().start()
HF_HOME = Path(tempfile.mkdtemp(prefix="optimum-int8-hf-"))
atexit.register(shutil.rmtree, HF_HOME, ignore_errors=True)
os.environ["HF_ENDPOINT"] = LOCAL_HUB.url
os.environ["HF_HOME"] = str(HF_HOME)
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"  # Transformers would ask a server on the internet to convert
os.environ["NO_PROXY"] = "127.0.0.1"
for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
    os.environ.pop(name, None)
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

if "PYTEST_XDIST_WORKER" in os.environ:  # processes share the cores; threads that wait for each other would spin
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
# Child processes of tests import the checkout too, whether or not it is installed.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), str(SITE), os.environ.get("PYTHONPATH")]))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays. The garbage collector would look at all of it again and again: without, collecting takes 8 s in place of 14, in
    each process."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An address in a name differs between the processes of pytest-xdist, which then runs nothing: say so in one process too."""
    if named := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"the names of these tests hold addresses, give them ids: {named}")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The local Hub, empty, with an empty cache; the user is alice."""
    LOCAL_HUB.reset()
    shutil.rmtree(HF_HOME, ignore_errors=True)
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    return LOCAL_HUB


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of models and data that are too large for the repository; mark such tests `shared`."""
    named = os.environ.get("OPTIMUM_INT8_SHARED")
    folder = Path(named) if named else ROOT.parent / "shared"
    if not (folder / "models").is_dir():
        pytest.skip(f"no models in {folder}: set OPTIMUM_INT8_SHARED to the folder of shared models and data")
    return folder

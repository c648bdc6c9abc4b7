"""What the Hub's client raises, told apart: transient or final, and in words a user can act on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import httpx2
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from ..errors import CheckpointError

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

RETRY_DELAYS_S = (1.0, 2.0, 4.0)
"""Waiting times between attempts, in seconds; their number is the number of retries."""

RETRY_WINDOW_S = 20.0
"""No new attempt after this time. The client repeats some requests itself, for 23 s: four times that is too long to wait."""

TRANSIENT_STATUS = (408, 409, 412, 429, 500, 502, 503, 504)
"""Answers after which the same attempt may succeed; 409 and 412 when somebody else's commit came between."""

CLIENT_ERRORS = (
    httpx2.HTTPError,
    EntryNotFoundError,
    HFValidationError,
    OfflineModeIsEnabled,
    RevisionResolutionError,
    OSError,
    ValueError,
    RuntimeError,
)
"""All that the client may raise for a request that fails; the Xet part raises plain built-in exceptions."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it, outermost first: the client hides a 403 behind "check your connection"."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error, or None when no server answered."""
    for cause in causes(error):
        if isinstance(cause, HfHubHTTPError | httpx2.HTTPStatusError) and cause.response is not None:
            return int(cause.response.status_code)
    return None


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed soon: an overloaded server, a cut connection; not a network that is down."""
    status = status_of(error)
    if status is not None:
        return status in TRANSIENT_STATUS
    chain = list(causes(error))
    if any(isinstance(cause, httpx2.ConnectError | ConnectionRefusedError) for cause in chain):
        return False
    # The Xet part of the client, written in Rust, raises the built-in ones.
    return any(isinstance(cause, httpx2.TransportError | ConnectionError | TimeoutError) for cause in chain)


def retry(action: Callable[[], Result], what: str) -> Result:
    """Run `action`, again after a transient failure. The last failure is raised as it came."""
    start = time.monotonic()
    for delay in RETRY_DELAYS_S:
        try:
            return action()
        except CLIENT_ERRORS as error:
            if not is_transient(error) or time.monotonic() - start > RETRY_WINDOW_S:
                raise
            logger.warning("%s failed (%s); trying again in %g s", what, _first_line(error), delay)
            time.sleep(delay)
    return action()


def explain(error: BaseException, what: str, name: str) -> CheckpointError:
    """One of our errors that says what happened to `name` and what to do; raise it `from error`.

    Args:
        error: what the client raised.
        what: the attempt, as in "download" or "push to".
        name: the repository.
    """
    status = status_of(error)
    chain = list(causes(error))

    def any_is(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in chain)

    if any_is(GatedRepoError):
        found = f"the repository {name!r} is gated; accept its terms on its page and pass a token of that account"
    elif any_is(RepositoryNotFoundError):
        found = f"there is no repository {name!r}, or it is private; check the name, or pass a token that may read it"
    elif any_is(RevisionNotFoundError):
        found = f"the repository {name!r} has no such revision; check revision="
    elif status == 401:
        found = "the Hub refused the token (401); log in again or pass a valid token"
    elif status == 403:
        found = (
            f"the token has no right to do this in {name!r} (403); use one that has, or create_pr=True to propose it"
        )
    elif status in (409, 412):
        found = f"somebody else keeps changing {name!r} ({status}); try again"
    elif status == 404 or (status is not None and any_is(EntryNotFoundError) and not any_is(LocalEntryNotFoundError)):
        found = f"a file is missing from {name!r} on the Hub (404)"
    elif status is not None:
        found = f"the Hub answered {status}: {_first_line(error)}; try again later"
    elif any_is(FileMetadataError):
        found = f"the server's answers are not those of a Hub ({_first_line(chain[-1])}); check HF_ENDPOINT"
    elif any_is(httpx2.TransportError, ConnectionError, TimeoutError):
        also = " and the cache does not hold it" if what == "download" else ""
        broken = next(
            cause for cause in chain if isinstance(cause, httpx2.TransportError | ConnectionError | TimeoutError)
        )
        found = f"the Hub could not be reached{also} ({_first_line(broken)}); check the network or HF_ENDPOINT"
    elif any_is(LocalEntryNotFoundError, OfflineModeIsEnabled, RevisionResolutionError):
        found = "it is not in the local cache and downloads are switched off; drop local_files_only or HF_HUB_OFFLINE"
    else:
        found = _first_line(error)
    return CheckpointError(f"cannot {what} {name!r}: {found}")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__

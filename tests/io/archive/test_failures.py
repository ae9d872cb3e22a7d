"""What went wrong is kept with its pair, says no secret, and is classified by whether trying again helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from crosstie.errors import (
    BadInputError,
    CrosstieError,
    NoGeoreferenceError,
    NoWorkerError,
    StoreError,
    UnreadableRasterError,
)
from crosstie.flows.registration.deadline import Deadline, TimeLimitError, check, stopped_by
from crosstie.flows.runs.failure_codes import failure_cause
from crosstie.io.archive.failures import Failure, forget_failure, read_failure, record_failure
from crosstie.io.archive.listing import list_archive
from crosstie.io.storage.redaction import redacted
from crosstie.io.storage.store import open_store

FAILURE = Failure(
    pair_key="A__B",
    run_key="0123",
    reference="A",
    secondary="B",
    code="unreadable_raster",
    message="s1.tif: cannot be opened",
    failed_utc="2025-06-01T00:00:00+00:00",
    attempts=2,
)

HERE, FAR = ("/data/s2.tif", "/data/s1.tif"), ("/data/s2.tif", "https://example.org/s1.tif")


def test_a_failure_is_kept_found_and_forgotten(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    record_failure(store, FAILURE)
    store.put("_runs/nightly/_FAILED.json", b"no pair's")
    store.put("C__D/0123/_FAILED.json", b"broken")
    assert read_failure(store, "A__B", "0123") == FAILURE
    assert read_failure(store, "A__B", "4567") is None
    assert list_archive(store).failed == {("A__B", "0123"), ("C__D", "0123")}
    assert read_failure(store, "C__D", "0123") is None
    forget_failure(store, "A__B", "0123")
    forget_failure(store, "A__B", "0123")
    assert list_archive(store).failed == {("C__D", "0123")}


@pytest.mark.parametrize(
    ("problem", "hrefs", "out", "code", "again"),
    [
        (UnreadableRasterError("cut short"), HERE, "out", "unreadable_raster", False),
        (UnreadableRasterError("HTTP response code: 503"), FAR, "out", "unreadable_remote_raster", True),
        (UnreadableRasterError("Connection refused"), FAR, "out", "unreadable_remote_raster", True),
        (UnreadableRasterError("HTTP response code: 404"), FAR, "out", "unreadable_raster", False),
        (UnreadableRasterError("HTTP error code : 403"), FAR, "out", "unreadable_raster", False),
        (StoreError("slow down"), HERE, "s3://bucket/out", "storage", True),
        (StoreError("disk full"), HERE, "out", "storage", False),
        (NoGeoreferenceError("no CRS"), FAR, "out", "no_georeference", False),
        (BadInputError("kinds"), FAR, "out", "bad_input", False),
        (TimeLimitError("slow"), FAR, "out", "time_limit", False),
        (NoWorkerError("gone"), FAR, "out", "no_gpu_worker", False),
        (ConnectionResetError("by peer"), HERE, "out", "connection", True),
        (TimeoutError(), HERE, "out", "connection", True),
        (KeyError("x"), FAR, "s3://bucket/out", "bug", False),
        (FileNotFoundError("x"), FAR, "s3://bucket/out", "bug", False),
    ],
)
def test_only_what_lies_beyond_a_network_is_tried_again(
    problem: BaseException, hrefs: tuple[str, ...], out: str, code: str, again: bool
) -> None:
    trouble = failure_cause(problem, hrefs, out)
    assert (trouble.code, trouble.again) == (code, again)
    assert trouble.message


def test_what_is_kept_of_an_error_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "kept-to-myself")
    problem = UnreadableRasterError(
        "'/vsicurl/https://me:pw@example.org/a.tif?sig=XYZ&v=1': denied to kept-to-myself;\nask"
    )
    message = failure_cause(problem, FAR, "out").message
    assert message == "'/vsicurl/https://example.org/a.tif?v=1': denied to ***; ask"


def test_redaction_keeps_what_is_no_address() -> None:
    text = "see https://example.org/a, (s3://bucket/key?X-Amz-Signature=abc). 5 % of 10 m"
    assert redacted(text) == "see https://example.org/a, (s3://bucket/key). 5 % of 10 m"


def test_a_deadline_stops_work_that_asks_and_only_inside_its_block() -> None:
    check()
    with stopped_by(Deadline.after(60).check):
        check()
        with (
            stopped_by(Deadline.after(0).check),
            pytest.raises(TimeLimitError, match=r"within 0 s.*runs\.pair_timeout_s"),
        ):
            check()
        check()
    assert issubclass(TimeLimitError, CrosstieError)

"""What is shown of other programs' messages: their hosts, and none of their secrets."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosstie.io.storage.redaction import first_line, redacted, without_queries

ID, KEY, TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"


@pytest.mark.parametrize("name", ["minio", "seaweedfs"])
@pytest.mark.parametrize(
    "text",
    [
        "error sending request for url (http://{}:9000/products/x)",
        'Could not connect to the endpoint URL: "http://{}.storage.svc:9000/"',
        "Could not resolve host: {}",
    ],
)
def test_a_key_named_like_the_host_does_not_blank_the_host(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(ID, name)
    monkeypatch.setenv(KEY, f"{name}-planted")
    assert redacted(text.format(name)) == text.format(name)
    # everywhere else it is still a key
    spoken = f"s3://{name}:{name}-planted@{name}/x of {name}: key {name}, Credential={name}/2026"
    assert redacted(spoken) == f"s3://{name}/x of ***: key ***, Credential=***/2026"


@pytest.mark.parametrize("variable", [KEY, TOKEN, "CROSSTIE_LISTEN_TOKEN", "PC_SDK_SUBSCRIPTION_API_KEY"])
def test_a_planted_secret_vanishes_even_where_a_host_stands(variable: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(variable, "planted-secret")
    assert redacted("https://planted-secret/x and myplanted-secretive") == "https://***/x and my***ive"


def test_short_keys_of_the_storage_vanish_as_words_and_leave_words_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ID, "me")
    monkeypatch.setenv(KEY, "pw")
    assert redacted("some method denied me (pw), me_2") == "some method denied *** (***), ***_2"


def test_a_secret_that_begins_another_leaves_no_end_of_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ID, "crosstie")
    monkeypatch.setenv(KEY, "crosstie-planted")
    assert redacted("denied: crosstie-planted") == "denied: ***"


def test_a_part_of_an_address_is_shown_without_its_signature():
    said = (
        "HTTPSConnectionPool(host='h', port=443): Max retries exceeded with url: /c.json?v=1&sig=planted (x)"
    )
    assert redacted(said) == said.replace("planted", "***")


def test_text_that_only_looks_like_an_address_is_no_trouble():
    assert redacted("see http://[planted:x and more") == "see http://*** and more"


@given(text=st.text(st.sampled_from("ab:/?&=@[]#.% sigkey'\"\n"), max_size=60))
def test_any_text_can_be_shown_and_showing_it_again_changes_nothing(text: str):
    once = redacted(text)
    assert redacted(once) == once


def test_the_first_line_holds_neither_a_dump_nor_xml(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(KEY, "planted-secret")
    problem = OSError("denied to planted-secret: <?xml version='1.0'?><Error/>\nDebug { planted }")
    assert first_line(problem) == "denied to ***"
    assert first_line(TimeoutError()) == "TimeoutError"
    # cut after the secrets are gone: no piece of one is left at the end
    assert "planted" not in first_line(OSError("x" * 290 + " planted-secret"))


def test_variables_that_another_thread_removes_lose_no_line():
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            for number in range(50):
                os.environ[f"COMES_{number}"] = "and goes"
            for number in range(50):
                del os.environ[f"COMES_{number}"]

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        assert {redacted("as it is") for _ in range(3000)} == {"as it is"}
    finally:
        over.set()
        thread.join()


def test_without_queries_drops_all_of_them():
    assert without_queries('GET "/a.tif?sig=x&v=1" HTTP/1.1') == 'GET "/a.tif?***" HTTP/1.1'

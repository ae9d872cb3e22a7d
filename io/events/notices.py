"""Read notices that a scene has arrived: S3 events in several forms, and STAC items. The result is ids only.

Nothing else in a message is trusted: no bucket, link or setting. Error messages never quote the message, so
that they can be logged and sent back whatever it contains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from crosstie.errors import BadInputError
from crosstie.io.scenes.ids import EXAMPLE, SceneIds, ids_in_path, kind_of
from crosstie.types import Kind

MAX_RECORDS = 100
"""Maximum number of records in one message. Storage services usually send one, rarely ten."""

FORMS = (
    "an S3 event (Records, or an EventBridge event of aws.s3), a SeaweedFS filer event (event_type, key), "
    "a STAC item (type Feature, id), or one of them in an SNS message"
)


class NoticeError(BadInputError):
    """A message is of no known form, or names no scene."""


@dataclass(frozen=True, slots=True)
class NoticeRules:
    """What is accepted in a message."""

    ids: SceneIds = field(default_factory=SceneIds)
    """Which texts are scene ids."""
    sar_collections: tuple[str, ...] = ()
    """Collections of Sentinel-1 items."""
    optical_collections: tuple[str, ...] = ()
    """Collections of Sentinel-2 items."""


@dataclass(frozen=True, slots=True)
class Notices:
    """The content of a message."""

    scene_ids: tuple[str, ...] = ()
    """Scenes that have arrived, each once, in the order of the message."""
    ignored: int = 0
    """Number of valid records that announce no scene: deletions, folders, the test message of a service."""
    refused: tuple[str, ...] = ()
    """Why other records were left out: one sentence each, which quotes nothing from the message."""


def read_json(text: bytes | str) -> object:
    """Parse JSON from an unknown sender.

    Raises
    ------
    NoticeError
        Not UTF-8, not JSON, or nested too deeply.
    """
    try:
        return json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except (ValueError, RecursionError):  # digits without end are a ValueError, too
        raise NoticeError(f"the message is not JSON; send {FORMS}") from None


def read_notices(message: object, rules: NoticeRules) -> Notices:
    """Read the scenes that a message announces.

    Parameters
    ----------
    message : object
        Parsed JSON.

    Raises
    ------
    NoticeError
        Of no known form, or nothing in it is a scene.
    """
    if not isinstance(message, dict):
        raise NoticeError(f"the message is no JSON object; send {FORMS}")
    notices = _gathered(_records(message), rules)
    if notices.refused and not notices.scene_ids:
        raise NoticeError(notices.refused[0])
    return notices


@dataclass(frozen=True, slots=True)
class _Object:
    """An object that arrived."""

    key: str


@dataclass(frozen=True, slots=True)
class _Item:
    """A STAC item."""

    scene_id: object
    collection: object


_Record = _Object | _Item | None
"""One record of a message; None is valid and announces no scene."""


def _records(message: dict[str, Any]) -> list[_Record]:
    if isinstance(records := message.get("Records"), list):
        if len(records) > MAX_RECORDS:
            raise NoticeError(f"the message holds {len(records)} records; send at most {MAX_RECORDS} at once")
        if not records:
            raise NoticeError("the message holds no record")
        return [_s3_record(record) for record in records]
    if message.get("Event") == "s3:TestEvent":
        return [None]
    if message.get("source") == "aws.s3" and "detail-type" in message:
        return [_event_bridge(message)]
    if isinstance(message.get("event_type"), str) and isinstance(message.get("key"), str):
        return [_filer_event(message)]
    if message.get("type") == "Feature":
        return [_Item(message.get("id"), message.get("collection"))]
    raise NoticeError(f"the message is of no known form; send {FORMS}")


def _s3_record(record: object) -> _Record:
    """The form of AWS. MinIO and Ceph use the same, with `s3:` before the event's name."""
    name = _text_at(record, "eventName").removeprefix("s3:")
    if not name:
        raise NoticeError("a record has no eventName, and is no S3 event")
    if not name.startswith("ObjectCreated:"):
        return None
    # The key is form-encoded: a space is a plus.
    return _Object(unquote_plus(_text_at(record, "s3", "object", "key"), errors="replace"))


def _event_bridge(message: dict[str, Any]) -> _Record:
    if message["detail-type"] != "Object Created":
        return None
    return _Object(_text_at(message, "detail", "object", "key"))  # not encoded here


def _filer_event(message: dict[str, Any]) -> _Record:
    """SeaweedFS: every change of its filer, including folders and the parts of an unfinished upload."""
    entry = _value_at(message, "message", "new_entry")
    if (
        message["event_type"] not in {"create", "update", "rename"}
        or _value_at(entry, "is_directory") is True
    ):
        return None
    path: str = message["key"]
    if message["event_type"] == "rename":  # the key is the old name
        path = f"{_text_at(message, 'message', 'new_parent_path')}/{_text_at(entry, 'name')}"
    return None if "/.uploads/" in path else _Object(path)


def _gathered(records: list[_Record], rules: NoticeRules) -> Notices:
    found: dict[str, None] = {}
    refused: dict[str, None] = {}
    for record in records:
        if record is None:
            continue
        try:
            found[_scene_of(record, rules)] = None
        except NoticeError as problem:
            refused[str(problem)] = None
    return Notices(tuple(found), sum(record is None for record in records), tuple(refused))


def _scene_of(record: _Object | _Item, rules: NoticeRules) -> str:
    if isinstance(record, _Object):
        ids = ids_in_path(record.key, rules.ids)
        if len(ids) == 1:
            return ids[0]
        raise NoticeError(
            "the key names two scenes; put one scene into one folder"
            if ids
            else f"no part of the key is the id of a Sentinel-1 or Sentinel-2 scene, like {EXAMPLE}; "
            "have the storage send scenes only (prefix, suffix)"
        )
    if not (isinstance(record.scene_id, str) and rules.ids.accepts(record.scene_id)):
        raise NoticeError(f"the item's id is not that of a Sentinel-1 or Sentinel-2 scene, like {EXAMPLE}")
    _check_collection(kind_of(record.scene_id), record.collection, rules)
    return record.scene_id


def _check_collection(kind: Kind | None, collection: object, rules: NoticeRules) -> None:
    """Refuse an item of a collection that is not searched: it would never be found. None is accepted."""
    allowed = {
        Kind.SAR: rules.sar_collections,
        Kind.OPTICAL: rules.optical_collections,
        None: rules.sar_collections + rules.optical_collections,
    }[kind]
    if collection is not None and collection not in allowed:
        raise NoticeError(
            f"the item's collection is none of {', '.join(allowed)}; those looked at are the settings "
            "catalog.sar_collections and catalog.optical_collections"
        )


def _value_at(value: object, *path: str) -> object:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _text_at(value: object, *path: str) -> str:
    """Text at a place in a message; empty if there is none, which is no scene and no event."""
    found = _value_at(value, *path)
    return found if isinstance(found, str) else ""

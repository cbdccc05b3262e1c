"""What rosbag2 wants to know of a bag: metadata.yaml, and its copy inside an MCAP file.

QoS is written as numbers up to version 8 and as names from 9 on, and a reader goes by the version. So an input's version is kept with its
texts. A new bag is of version 8, which every ROS 2 since Humble reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from percodec.runtime.bag.records import CDR, QOS, TYPE_HASH, Channel
from percodec.sdk.yaml_text import read_yaml

NEW = 8
KEY = "rosbag2_bagfile_information"
_NAMED = re.compile(r"^\s*-?\s*(?:history|reliability|durability|liveliness): *[a-z]", re.MULTILINE)


def information_of(text: str | None, counts: Mapping[Channel, int], times: tuple[int, int], file: str) -> dict[str, Any] | None:
    """For a bag of one MCAP file with these channels. `text`: the input's, if it has any. None for a bag that is not of ROS 2 alone."""
    if any(channel.encoding != CDR for channel in counts):
        return None
    given = _given(text)
    named = any(_NAMED.search(dict(channel.metadata).get(QOS, "")) for channel in counts)
    version = given.get("version") if isinstance(given.get("version"), int) else None
    version = version or (9 if named else NEW)
    first, last = times
    span = {"starting_time": {"nanoseconds_since_epoch": first}, "duration": {"nanoseconds": last - first}}
    total = sum(counts.values())
    made: dict[str, Any] = {
        "version": version,
        "storage_identifier": "mcap",
        "duration": span["duration"],
        "starting_time": span["starting_time"],
        "message_count": total,
        "topics_with_message_count": _topics(given, counts, version),
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [file],
        "files": [{"path": file, **span, "message_count": total}],
    }
    kept = {key: given[key] for key in ("custom_data", "ros_distro") if key in given}
    return {KEY: made | kept}


def text_of(information: Mapping[str, Any]) -> str:
    """As YAML, without anchors."""
    return str(yaml.dump(dict(information), Dumper=_Plain, sort_keys=False, default_flow_style=False))


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _given(text: str | None) -> dict[str, Any]:
    try:
        found = read_yaml(text or "")
    except ValueError:
        return {}
    found = found.get(KEY, found) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}


def _topics(given: Mapping[str, Any], counts: Mapping[Channel, int], version: int) -> list[dict[str, Any]]:
    said = {}
    for entry in given.get("topics_with_message_count") or []:
        if isinstance(entry, dict) and isinstance(entry.get("topic_metadata"), dict):
            said[entry["topic_metadata"].get("name")] = entry["topic_metadata"]
    by_topic: dict[str, tuple[Channel, int]] = {}
    for channel, count in counts.items():
        by_topic[channel.topic] = (channel, count + by_topic.get(channel.topic, (channel, 0))[1])
    found = []
    for topic, (channel, count) in by_topic.items():
        metadata = dict(channel.metadata)
        entry = said.get(topic, {})
        if entry.get("type") != channel.schema:
            entry = {"name": topic, "type": channel.schema, "serialization_format": channel.encoding}
            entry[QOS] = _qos(metadata.get(QOS, ""), version)
            entry |= {"type_description_hash": metadata.get(TYPE_HASH, "")} if version >= 7 else {}
        found.append({"topic_metadata": entry, "message_count": count})
    return found


def _qos(text: str, version: int) -> Any:
    if version < 9:
        return text
    try:
        return read_yaml(text) or []
    except ValueError:
        return []


__all__ = ["KEY", "NEW", "information_of", "text_of"]

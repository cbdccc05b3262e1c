"""What MCAP's library does not read: SQLite bags, bags packed by rosbag2, ROS 1 bags. Messages become CDR, as ROS 2 records them.

A bag packed as whole files is unpacked first, into the temporary folder.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from percodec.runtime.bag.records import CDR, QOS, TYPE_HASH, Channel, Message, Progress, Record, library
from percodec.sdk.errors import BagError, reason
from percodec.sdk.yaml_text import read_yaml

# What rosbag2 up to version 8 writes of a publisher that keeps its last message for late subscribers, as a ROS 1 latch does.
_FOREVER = "\n    sec: 9223372036\n    nsec: 854775807"
LATCHED = (
    "- history: 1\n  depth: 1\n  reliability: 1\n  durability: 1\n"
    f"  deadline:{_FOREVER}\n  lifespan:{_FOREVER}\n  liveliness: 1\n  liveliness_lease_duration:{_FOREVER}\n"
    "  avoid_ros_namespace_conventions: false"
)


class RosbagsFiles:
    """As `McapFiles`. `kind`: sqlite3, mcap (packed) or ros1."""

    profile = "ros2"

    def __init__(self, path: Path, kind: str) -> None:
        """Raises `BagError`."""
        self.path, self.kind, self.damage = path, kind, list[str]()
        self._reader = library("rosbags.rosbag1").Reader if kind == "ros1" else library("rosbags.rosbag2").Reader
        store = library("rosbags.typesys")
        self._types = store.get_typestore(store.Stores.ROS2_JAZZY)
        try:
            with self._reader(path) as bag:
                self.messages = int(bag.message_count)
                self._by_id = self._described(bag)
                self.counts: dict[Channel, int] | None = {}
                for connection in bag.connections:
                    channel = self._by_id[connection.id]
                    self.counts[channel] = self.counts.get(channel, 0) + connection.msgcount
        except BagError:
            raise
        except Exception as error:  # SQLite, YAML, zstd and the library each have errors of their own
            raise BagError(f"{path} cannot be read as a bag ({reason(error)})") from error

    @property
    def channels(self) -> list[Channel]:
        return list(dict.fromkeys(self._by_id.values()))

    def information(self) -> str | None:
        """metadata.yaml, None where there is none."""
        file = self.path / "metadata.yaml"
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def records(self, progress: Progress = lambda done, of: None) -> Iterator[Record]:
        """In the order of their times."""
        self.damage, done = [], 0
        try:
            with self._reader(self.path) as bag:
                for connection, time_ns, data in bag.messages(bag.connections):
                    done += 1
                    progress(done, self.messages)
                    channel = self._by_id[connection.id]
                    if self.kind == "ros1":
                        data = self._types.ros1_to_cdr(data, connection.msgtype)
                    yield Message(channel, time_ns, time_ns, 0, bytes(data))
        except GeneratorExit:
            raise
        except Exception as error:
            self.damage.append(f"{self.path}: cut off or damaged after {done} of {self.messages} messages ({reason(error)})")

    def _described(self, bag: Any) -> dict[int, Channel]:
        qos = {} if self.kind == "ros1" else self._qos()
        latched = {c.topic for c in bag.connections if getattr(c.ext, "latching", None)}
        found = {}
        for c in bag.connections:
            if self.kind == "ros1":
                self._learn(c)
            definition, encoding = self._definition(c)
            offered = qos.get(c.topic, LATCHED if c.topic in latched else "")
            digest = self._digest(c)
            metadata = ((QOS, offered), *(((TYPE_HASH, digest),) if digest else ()))
            found[c.id] = Channel(c.topic, CDR, c.msgtype, encoding, definition.encode(), metadata)
        return found

    def _learn(self, connection: Any) -> None:
        """Types of the bag that ROS 2 has not: its own ones stay, for ROS 1 counts in the Header."""
        if connection.msgtype in self._types.fielddefs:
            return
        try:
            own = library("rosbags.typesys").get_types_from_msg(connection.msgdef.data, connection.msgtype)
            self._types.register({name: kind for name, kind in own.items() if name not in self._types.fielddefs})
        except Exception as error:
            raise BagError(f"{self.path}: the type {connection.msgtype} of {connection.topic} is not known ({reason(error)})") from error

    def _definition(self, connection: Any) -> tuple[str, str]:
        if self.kind != "ros1" and connection.msgdef.data:
            return connection.msgdef.data, "ros2idl" if connection.msgdef.format.name == "IDL" else "ros2msg"
        try:
            return self._types.generate_msgdef(connection.msgtype, ros_version=2)[0].rstrip("\n"), "ros2msg"
        except Exception:  # an older bag does not say, and the type is nobody's: readers with the package know it
            return "", ""

    def _digest(self, connection: Any) -> str:
        if self.kind != "ros1" and connection.digest:
            return str(connection.digest)
        try:
            return str(self._types.hash_rihs01(connection.msgtype))
        except Exception:
            return ""

    def _qos(self) -> dict[str, str]:
        """Topic -> the text that was recorded: from the database itself, else from metadata.yaml."""
        found: dict[str, str] = {}
        text = self.information()
        if text is not None:
            entries = read_yaml(text)["rosbag2_bagfile_information"]["topics_with_message_count"]
            for entry in (entry["topic_metadata"] for entry in entries):
                given = entry.get(QOS, "")
                found[entry["name"]] = given if isinstance(given, str) else yaml.safe_dump(given, sort_keys=False) if given else ""
        for file in [self.path] if self.path.suffix == ".db3" else sorted(self.path.glob("*.db3")):
            found |= _recorded_qos(file)
        return found


def _recorded_qos(file: Path) -> dict[str, str]:
    """A database of an early rosbag2 has none."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as base:
        return {str(name): str(offered) for name, offered in base.execute(f"SELECT name, {QOS} FROM topics")}
    return {}


__all__ = ["LATCHED", "RosbagsFiles"]

"""vision_msgs is in no package registry. What the nodes use of it, as a module whose messages travel as std_msgs/String."""

from __future__ import annotations

from pathlib import Path

MODULE = """
from std_msgs.msg import String as _String


class VisionClass:
    def __init__(self, class_id, class_name):
        self.text = f"{class_id} {class_name}"


class ObjectHypothesis:
    def __init__(self, class_id, score):
        self.text = f"{class_id} {score:.4f}"


def _message(name):
    def fill(self, header, **parts):
        ((_, entries),) = parts.items()
        stamp = header.stamp
        _String.__init__(self, data="\\n".join([f"{stamp.sec}.{stamp.nanosec:09d} {header.frame_id}", *(entry.text for entry in entries)]))

    return type(_String)("String", (_String,), {"__init__": fill, "__module__": _String.__module__, "__slots__": []})


LabelInfo, Classification = _message("LabelInfo"), _message("Classification")
"""


def write_module(folder: Path) -> Path:
    """`vision_msgs.msg` below `folder`, which then belongs on the PYTHONPATH."""
    package = folder / "vision_msgs" / "msg"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text(MODULE, encoding="utf-8")
    return folder


__all__ = ["write_module"]

"""Every parameter of every node, in one table: the nodes declare it, `config/` and `schema/` are written from it. Needs no ROS.

    python3 percodec_ros/parameters.py      writes config/*.param.yaml and schema/*.schema.json anew

`when` a value may change: "start", by the command line or a file alone; "configure", while the node is unconfigured; "any" time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Value = bool | int | float | str | list[str]


@dataclass(frozen=True)
class Parameter:
    """`low` and `high` bound a number, both inclusive; `choices` a string. An empty list of strings is [""]: ROS has no type for []."""

    name: str
    default: Value
    description: str
    when: str = "configure"
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


_ENGINES = (
    Parameter("bundle", "", "Folder of the bundle; empty: road, which comes with percodec"),
    Parameter("backend", "ort", "What runs the networks: ort, tensorrt or tensorrt_rtx, with :precision if wanted; exactly this, or none"),
    Parameter("threads", 1, "CPU threads of each network", low=1, high=64),
    Parameter("provider", "", "Python package for CUDA: cuda-python or pycuda; empty: whichever is there"),
    Parameter("transfer", "auto", "How pictures reach the GPU", choices=("auto", "copy", "mapped", "managed")),
)
_HEADS = (
    Parameter("heads", [""], "Heads to open, the first of a kind is published; empty: the bundle's default one"),
    Parameter("publish_invalid", False, "Publish also predictions that must not be acted on; messages have no flag to tell", when="any"),
    Parameter("overlay_alpha", 0.5, "Weight of the class colours in the overlay", when="any", low=0.0, high=1.0),
    Parameter("jpeg_quality", 80, "Of the overlay", when="any", low=1, high=100),
    Parameter("label_info", "once", "Class names once, latched, or with each label image", choices=("once", "each")),
)
_PIPELINE = (
    Parameter("isolate", False, "Networks in a process of their own, replaced when it fails"),
    Parameter("fallback", [""], "Backends that take over where the first keeps failing; with isolate"),
    Parameter("predict", True, "Publish what the heads say"),
    Parameter("packets", True, "Publish packets"),
    Parameter("stream_id", 0, "Number of the camera, in every packet", low=0, high=65535),
    Parameter("rate_hz", 0.0, "Take at most so many images a second; 0: all", when="any", low=0.0, high=1000.0),
    Parameter("allow_unfamiliar", False, "Predictions of scenes unlike those that the bundle was made for stay valid"),
    Parameter("max_age_ms", 500.0, "A prediction older than this, from the arrival of the image, is invalid", low=1.0, high=60000.0),
)
_IMAGES = (
    Parameter("input_transport", "raw", "raw: image_raw; compressed: JPEG or PNG from image_raw/compressed", choices=("raw", "compressed")),
    Parameter("policy", "latest", "latest: the newest image; block: up to 100 wait, for slow replays", choices=("latest", "block")),
    Parameter("max_stamp_age_ms", 0.0, "Images older than this by their stamp are dropped; 0: none", when="any", low=0.0, high=3600000.0),
    Parameter("check_repeats", True, "A picture that repeats is a broken camera; never so under use_sim_time"),
)
_INPUT = (
    Parameter("input_reliability", "auto", "auto: reliable where all publishers are", choices=("auto", "reliable", "best_effort")),
    Parameter("lazy", False, "Without a subscriber do nothing and subscribe to nothing"),
)
_SOURCE = (
    Parameter("source", "v4l2://0", "What `percodec run` takes: v4l2://0, gstreamer://PIPELINE ! appsink, a file, synthetic://road"),
    Parameter("camera_format", "", "FORMAT:WIDTHxHEIGHT of a camera's pictures, for example nv12:1920x1080; empty: as OpenCV gives them"),
    Parameter("camera_info_file", "", "Calibration as camera_calibration writes it (YAML); empty: none, and no camera_info"),
    Parameter("frame_id", "camera", "The camera's optical frame, in every header"),
    Parameter("reconnect_s", 10.0, "How long a camera that is lost may stay lost", low=0.0, high=3600.0),
)
_LIFE = (
    Parameter("diagnostics_period_s", 1.0, "Between two messages on /diagnostics", when="start", low=0.1, high=60.0),
    Parameter("autostart", True, "Configure and activate without being asked", when="start"),
)

NODES: dict[str, tuple[Parameter, ...]] = {
    "encode": (*_ENGINES, *_PIPELINE, *_IMAGES, *_INPUT, *_HEADS, *_LIFE),
    "predict": (*_ENGINES, *_INPUT, *_HEADS, *_LIFE),
    "decode": (*_ENGINES, *_INPUT, *_LIFE),
    "camera": (*_SOURCE, *_ENGINES, *_PIPELINE, *_HEADS, *_LIFE),
}


def schema_of(node: str) -> dict[str, Any]:
    """JSON schema (draft-07) of a node's parameter file. What ROS itself adds to every node is allowed, too."""
    properties: dict[str, Any] = {p.name: _property(p) for p in NODES[node]}
    properties["use_sim_time"] = {"type": "boolean", "description": "Time comes from /clock"}
    properties["qos_overrides"] = {"type": "object", "description": "Of publishers, by topic"}
    parameters = {"type": "object", "properties": properties, "additionalProperties": False}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"Parameters of percodec_ros {node}",
        "type": "object",
        "properties": {
            "/**": {
                "type": "object",
                "properties": {"ros__parameters": parameters},
                "required": ["ros__parameters"],
                "additionalProperties": False,
            }
        },
        "required": ["/**"],
        "additionalProperties": False,
    }


def config_of(node: str) -> str:
    """The parameter file with every default, each behind its description."""
    lines = ["/**:", "  ros__parameters:"]
    for parameter in NODES[node]:
        lines += [f"    # {parameter.description}", f"    {parameter.name}: {json.dumps(parameter.default)}"]
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """Path in the package -> text, of everything written from the table."""
    made = {f"config/{node}.param.yaml": config_of(node) for node in NODES}
    return made | {f"schema/{node}.schema.json": json.dumps(schema_of(node), indent=2) + "\n" for node in NODES}


def _property(parameter: Parameter) -> dict[str, Any]:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    found: dict[str, Any] = {"type": kinds[type(parameter.default)], "default": parameter.default, "description": parameter.description}
    if isinstance(parameter.default, list):
        found["items"] = {"type": "string"}
    if parameter.low is not None:
        found |= {"minimum": parameter.low, "maximum": parameter.high}
    if parameter.choices:
        found["enum"] = list(parameter.choices)
    return found


if __name__ == "__main__":
    for name, text in files().items():
        path = Path(__file__).parents[1] / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

__all__ = ["NODES", "Parameter", "Value", "config_of", "files", "schema_of"]

"""Typed messages, filled. Data goes in as one `array.array`: what rclpy does with other types, element by element, takes seconds."""

from __future__ import annotations

import importlib
from array import array
from collections.abc import Sequence
from typing import Any

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from percodec.runtime.messages import cdr
from percodec.sdk.bundle import Label


def header(of: cdr.Header) -> Header:
    """Bit for bit."""
    return Header(stamp=Time(sec=of.sec, nanosec=of.nanosec), frame_id=of.frame_id)


def image(of: cdr.Header, encoding: str, pixels: Any) -> Image:
    """From uint8 [H,W] or [H,W,n]."""
    height, width = pixels.shape[:2]
    message = Image(header=header(of), height=height, width=width, encoding=encoding, step=pixels.nbytes // height)
    message.data = _octets(pixels)
    return message


def compressed(of: cdr.Header, format: str, data: Any) -> CompressedImage:
    """From bytes, or contiguous uint8."""
    message = CompressedImage(header=header(of), format=format)
    message.data = _octets(data)
    return message


def camera_info(info: cdr.CameraInfo) -> CameraInfo:
    """The same, typed."""
    roi = info.roi
    return CameraInfo(
        header=header(info.header),
        height=info.height,
        width=info.width,
        distortion_model=info.distortion_model,
        d=list(info.d),
        k=list(info.k),
        r=list(info.r),
        p=list(info.p),
        binning_x=info.binning_x,
        binning_y=info.binning_y,
        roi=RegionOfInterest(x_offset=roi.x_offset, y_offset=roi.y_offset, height=roi.height, width=roi.width, do_rectify=roi.do_rectify),
    )


def vision_messages() -> Any | None:
    """The module `vision_msgs.msg`, where that package is installed."""
    try:
        return importlib.import_module("vision_msgs.msg")
    except ImportError:
        return None


def label_info(vision: Any, of: cdr.Header, labels: Sequence[Label]) -> Any:
    """vision_msgs/LabelInfo: a class for each label."""
    classes = [vision.VisionClass(class_id=label.id, class_name=label.name) for label in labels]
    return vision.LabelInfo(header=header(of), class_map=classes)


def classification(vision: Any, of: cdr.Header, probs: Sequence[float], labels: Sequence[Label]) -> Any:
    """vision_msgs/Classification: every class with its probability, the most probable first."""
    names = {label.id: label.name for label in labels}
    order = sorted(range(len(probs)), key=lambda k: -probs[k])
    results = [vision.ObjectHypothesis(class_id=names.get(k, str(k)), score=float(probs[k])) for k in order]
    return vision.Classification(header=header(of), results=results)


def _octets(data: Any) -> array[int]:
    filled = array("B")
    filled.frombytes(memoryview(data).cast("B"))
    return filled


__all__ = ["camera_info", "classification", "compressed", "header", "image", "label_info", "vision_messages"]

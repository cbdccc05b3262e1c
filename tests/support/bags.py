"""ROS bags as other software writes them: two cameras, their camera info, a latched topic, and something that is no picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from percodec.sdk.synthetic.road import RoadScene

STORE, STORE1 = get_typestore(Stores.ROS2_JAZZY), get_typestore(Stores.ROS1_NOETIC)
STORE1.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage"))
FOREVER = QosTime(9223372036, 854775807)
BEGIN = 1_700_000_000_000_000_000
FRONT, REAR = "/front/image_raw", "/rear/image_raw"
INFO, STATIC, TEXT = "/front/camera_info", "/tf_static", "/rosout_text"
Kind = Literal["mcap", "sqlite3", "file", "message", "ros1"]


def latched() -> Qos:
    """Keeps its last message for late subscribers."""
    return _qos(QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL)


def _qos(reliability: QosReliability, durability: QosDurability) -> Qos:
    automatic = QosLiveliness.AUTOMATIC
    return Qos(QosHistory.KEEP_LAST, 7, reliability, durability, FOREVER, FOREVER, automatic, FOREVER, False)


SENSOR = _qos(QosReliability.BEST_EFFORT, QosDurability.VOLATILE)


def pictures(frames: int, height: int, width: int, seed: int = 1) -> list[NDArray[np.uint8]]:
    """RGB, one after the other of a drive on the synthetic road."""
    scene = RoadScene(seed, height, width)
    return [np.ascontiguousarray(scene.render(k)[0]) for k in range(frames)]


def stamp(k: int) -> int:
    """Of frame k, ns since 1970, at 25 fps."""
    return BEGIN + k * 40_000_000 + 7


def image(store: Any, picture: NDArray[np.uint8], k: int, frame_id: str, encoding: str = "bgr8") -> Any:
    """sensor_msgs/Image of an RGB picture."""
    data = picture[:, :, ::-1] if encoding == "bgr8" else picture
    height, width = picture.shape[:2]
    flat = np.ascontiguousarray(data).reshape(-1)
    return store.types["sensor_msgs/msg/Image"](_header(store, k, frame_id), height, width, encoding, 0, width * 3, flat)


def _header(store: Any, k: int, frame_id: str) -> Any:
    time = store.types["builtin_interfaces/msg/Time"](stamp(k) // 10**9, stamp(k) % 10**9)
    kind = store.types["std_msgs/msg/Header"]
    return kind(seq=k, stamp=time, frame_id=frame_id) if store is STORE1 else kind(stamp=time, frame_id=frame_id)


def camera_info(store: Any, k: int, height: int, width: int) -> Any:
    """A pinhole camera in the middle."""
    f, cx, cy = float(width), (width - 1) / 2, (height - 1) / 2
    k9, p12 = np.array([f, 0, cx, 0, f, cy, 0, 0, 1.0]), np.array([f, 0, cx, 0, 0, f, cy, 0, 0, 0, 1.0, 0])
    roi = store.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    kind, model, d, r9 = store.types["sensor_msgs/msg/CameraInfo"], "plumb_bob", np.zeros(5), np.eye(3).reshape(-1)
    if store is STORE1:
        return kind(_header(store, k, "front"), height, width, model, D=d, K=k9, R=r9, P=p12, binning_x=0, binning_y=0, roi=roi)
    return kind(_header(store, k, "front"), height, width, model, d, k9, r9, p12, 0, 0, roi)


def transform(store: Any) -> Any:
    """tf2_msgs/TFMessage with one transform."""
    types = store.types
    placed = types["geometry_msgs/msg/Transform"](
        types["geometry_msgs/msg/Vector3"](1.0, 2.0, 3.0), types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
    )
    return types["tf2_msgs/msg/TFMessage"]([types["geometry_msgs/msg/TransformStamped"](_header(store, 0, "base"), "front", placed)])


def write_bag(
    path: Path, kind: Kind = "mcap", *, frames: int = 4, size: tuple[int, int] = (128, 72), version: int = 9, jpeg: bool = False
) -> Path:
    """A folder, or of ROS 1 a file. `size`: width, height; rear pictures are two pixels smaller each way. `jpeg`: rear ones."""
    width, height = size
    front, rear = pictures(frames, height, width), pictures(frames, height - 2, width - 2, seed=2)
    store = STORE1 if kind == "ros1" else STORE
    if kind == "ros1":
        writer: Any = Writer1(path)
    else:
        plugin = StoragePlugin.SQLITE3 if kind == "sqlite3" else StoragePlugin.MCAP
        writer = Writer(path, version=version, storage_plugin=plugin)
        if kind in ("file", "message"):
            writer.set_compression(CompressionMode[kind.upper()], CompressionFormat.ZSTD)
    with writer:
        rear_topic, rear_type = (f"{REAR}/compressed", "CompressedImage") if jpeg else (REAR, "Image")
        kinds = {
            STATIC: "tf2_msgs/msg/TFMessage", FRONT: "sensor_msgs/msg/Image", rear_topic: f"sensor_msgs/msg/{rear_type}",
            INFO: "sensor_msgs/msg/CameraInfo", TEXT: "std_msgs/msg/String",
        }  # fmt: skip
        connections = {}
        for topic, name in kinds.items():
            if kind == "ros1":
                connections[topic] = writer.add_connection(topic, name, typestore=STORE1, latching=int(topic == STATIC))
            else:
                offered = [latched() if topic == STATIC else SENSOR]
                connections[topic] = writer.add_connection(topic, name, typestore=STORE, offered_qos_profiles=offered)

        def write(topic: str, message: Any, time: int) -> None:
            name = kinds[topic]
            data = store.serialize_ros1(message, name) if kind == "ros1" else store.serialize_cdr(message, name)
            writer.write(connections[topic], time, data)

        write(STATIC, transform(store), BEGIN)
        for k in range(frames):
            write(FRONT, image(store, front[k], k, "front_optical"), stamp(k) + 1000)
            write(INFO, camera_info(store, k, height, width), stamp(k) + 2000)
            if jpeg:
                data = cv2.imencode(".jpg", rear[k][:, :, ::-1])[1].reshape(-1)
                coded = store.types["sensor_msgs/msg/CompressedImage"](
                    _header(store, k, "rear_optical"), "rgb8; jpeg compressed bgr8", data
                )
                write(rear_topic, coded, stamp(k) + 3000)
            else:
                write(REAR, image(store, rear[k], k, "rear_optical", "rgb8"), stamp(k) + 3000)
            write(TEXT, store.types["std_msgs/msg/String"](f"frame {k}"), stamp(k) + 4000)
    return path

"""A process without ROS: `stranger.py DOMAIN FOLDER` sends images over Eclipse Cyclone until ten packets have come back as files."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ["CYCLONEDDS_URI"] = (
    "<CycloneDDS><Domain><General><Interfaces><NetworkInterface name='lo'/></Interfaces><AllowMulticast>false</AllowMulticast></General>"
    "<Discovery><ParticipantIndex>auto</ParticipantIndex><Peers><Peer address='127.0.0.1'/></Peers></Discovery></Domain></CycloneDDS>"
)

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import int32, sequence, uint8, uint32
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from percodec.sdk.synthetic.road import RoadScene


@dataclass
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: int32
    nanosec: uint32


@dataclass
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: Time
    frame_id: str


@dataclass
class Image(IdlStruct, typename="sensor_msgs::msg::dds_::Image_"):
    header: Header
    height: uint32
    width: uint32
    encoding: str
    is_bigendian: uint8
    step: uint32
    data: sequence[uint8]


@dataclass
class CompressedImage(IdlStruct, typename="sensor_msgs::msg::dds_::CompressedImage_"):
    header: Header
    format: str
    data: sequence[uint8]


def main() -> int:
    """0 once ten packets are there, 1 after half a minute."""
    domain, folder = int(sys.argv[1]), Path(sys.argv[2])
    participant = DomainParticipant(domain)
    qos = Qos(Policy.Reliability.Reliable(duration(seconds=1)), Policy.History.KeepLast(10))
    writer = DataWriter(participant, Topic(participant, "rt/image_raw", Image), qos=qos)
    reader = DataReader(participant, Topic(participant, "rt/image_raw/percodec", CompressedImage), qos=qos)
    picture = RoadScene(1, 360, 480).render(0)[0]
    pixels = list(picture.tobytes())
    deadline, sent, found = time.monotonic() + 30, 0, 0
    while time.monotonic() < deadline:
        writer.write(Image(Header(Time(1_700_000_000, sent), "stranger"), 360, 480, "rgb8", 0, 1440, pixels))
        sent += 1
        time.sleep(0.1)
        for message in reader.take(10):
            if hasattr(message, "format") and found < 10:
                stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
                (folder / f"{stamp}.packet").write_bytes(message.format.encode() + b"\n" + bytes(message.data))
                found += 1
        if found == 10:
            return 0
    return 1


if __name__ == "__main__":
    raise SystemExit(main())

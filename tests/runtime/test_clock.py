"""When a run was, and when its frames were: both clocks in log and report, and no time of day where frames have none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from percodec.runtime.capture.source import SourceInfo
from percodec.runtime.run.live import run_live
from percodec.runtime.run.outputs import RunOutputs
from percodec.runtime.run.settings import RunSettings
from percodec.sdk import Bundle, ClockAnchor, PacketCodec, read_log


def test_log_and_report_of_a_file_say_when_it_was_run_and_no_time_of_its_frames(bundle_folder: Path, video: Path, tmp_path: Path) -> None:
    before = ClockAnchor.now()
    run_live(RunSettings(str(video), tmp_path / "out", bundle_folder, max_frames=3, overlay=False, sheet=False))
    after = ClockAnchor.now()
    clock = json.loads((tmp_path / "out" / "report.json").read_text())["clock"]
    log = read_log(tmp_path / "out" / "packets.mcap")
    for begun, closed in (log.anchors, [ClockAnchor(**anchor) for anchor in clock["anchors"]]):
        assert before.monotonic_ns < begun.monotonic_ns < closed.monotonic_ns < after.monotonic_ns
        assert before.utc_ns < begun.utc_ns < closed.utc_ns < after.utc_ns
    assert clock["timestamps"] == "media"
    assert [log.utc_ns_of(record.timestamp_ns) for record in log] == [None] * 3


@pytest.mark.parametrize("live", [True, False])
def test_frames_of_a_camera_have_a_time_of_day(bundle_folder: Path, tmp_path: Path, live: bool) -> None:
    bundle = Bundle.open(bundle_folder)
    settings = RunSettings("camera", tmp_path, bundle_folder, overlay=False, sheet=False)
    outputs = RunOutputs(settings, bundle, ("segmentation",), SourceInfo("camera", "v4l2", live), None)
    on_packet, exposed = outputs.outputs().on_packet, ClockAnchor.now()
    assert on_packet is not None
    codec = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])
    on_packet(codec.encode(np.zeros(bundle.latent_shape, np.uint8), 0, exposed.monotonic_ns), 0, exposed.monotonic_ns)
    assert outputs.close() == []
    log = read_log(tmp_path / "packets.mcap")
    utc_ns = log.utc_ns_of(exposed.monotonic_ns)
    assert log.live == live
    assert utc_ns is None if not live else utc_ns is not None and abs(utc_ns - exposed.utc_ns) < 100_000_000

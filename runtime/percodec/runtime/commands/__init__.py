"""The vehicle's commands: run, demo, encode, decode, replay, profile, doctor. Argument checks and printing; the work is elsewhere."""

from __future__ import annotations

from percodec.runtime.commands import coding, doctor, profile, replay, run
from percodec.sdk.cli import Command


def commands() -> list[Command]:
    """What this part adds to `percodec`."""
    return [
        Command("run", "predict and log from a video, folder, camera or synthetic road", run.configure_run, run.run),
        Command("demo", "a synthetic drive through the whole path, with pictures", run.configure_demo, run.demo),
        Command("encode", "image -> packet, video or folder -> log", coding.configure_encode, coding.encode),
        Command("decode", "packet or log -> RGB pictures, and segmentation with --segment", coding.configure_decode, coding.decode),
        Command("replay", "predict again from logged packets and compare with the live run", replay.configure_replay, replay.replay),
        profile.command(),
        Command("doctor", "what this machine can run, and what is missing", doctor.configure_doctor, doctor.doctor),
    ]


__all__ = ["commands"]

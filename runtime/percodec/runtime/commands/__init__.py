"""The vehicle's commands, by name, and ingest beside the archive. Argument checks and printing; the work is elsewhere.

`percodec.sdk.cli` imports the module of a command when it is used.
"""

from __future__ import annotations

from percodec.sdk.cli import Command


def commands() -> list[Command]:
    """What this part adds to `percodec`."""
    here = "percodec.runtime.commands"
    return [
        Command("run", "predict and log from a video, folder, camera or synthetic road", f"{here}.run", "ort"),
        Command("demo", "a synthetic drive through the whole path, with pictures", f"{here}.run", "ort"),
        Command("encode", "image -> packet, video or folder -> log", f"{here}.coding", "ort"),
        Command("decode", "packet or log -> RGB pictures, and segmentation with --segment", f"{here}.coding", "ort"),
        Command("replay", "predict again from logged packets and compare with the live run", f"{here}.replay", "ort"),
        Command("bag", "ROS bags without ROS: pictures to packets, packets to labels or pictures", f"{here}.bag", "bag"),
        Command("profile", "latency, jitter, drops, memory and power of a bundle on this machine", f"{here}.profile", "ort"),
        Command("uplink", "ship logs from the vehicle to the archive, live frames first, nothing lost", f"{here}.uplink", "uplink"),
        Command("ingest", "take what vehicles sent from the broker into the archive", f"{here}.uplink", "ingest"),
        Command("serve", "answer predictions for packets: gRPC and HTTP, Open Inference Protocol", f"{here}.serve", "serve"),
        Command("sign", "keys, signatures of bundles, and who vouches for one here", f"{here}.sign", "sign"),
        Command("bundle", "install releases of bundles on a vehicle, switch between them, go back", f"{here}.store"),
        Command("doctor", "what this machine can run, and what is missing", f"{here}.doctor"),
    ]


__all__ = ["commands"]

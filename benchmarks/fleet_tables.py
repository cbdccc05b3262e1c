"""Tables of a fleet's data, from `bench_fleet.py` and `fleet_trial.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lab_tables


def reading(result: dict[str, Any]) -> str:
    """What one core reads, and a billion frames on paper."""
    names = {
        "read": "packets, read from logs",
        "decode": "packets in memory, decoded to latents",
        "packets": "`PacketDataset`: read, shuffled, decoded",
        "jpeg": "JPEGs in memory, decoded by simplejpeg",
        "encode": "pictures in memory, encoded to latents",
        "predict": "latents, through one head",
    }
    rates = result["images_per_cpu_second"]
    rows = [[what, f"{rates[name]:,}"] for name, what in names.items()]
    size, ratio, billion = result["bytes_per_frame"], result["packets_over_jpeg"], result["billion"]
    width, height = result["bundle"]["frame"]
    about = (
        f"`{result['bundle']['name']}` at {width}x{height}, {size['packet'] / 1000:.1f} kB a packet, {result['pictures']}; JPEG at quality "
    )
    about += (
        f"80, {size['jpeg_q80'] / 1000:.1f} kB. `PacketDataset` reads {ratio['median']:.1f} times the images that simplejpeg decodes, at "
    )
    about += f"least {ratio['least']:.1f}. {result['machine']['cpu']}, load {result['load']}, CPU time, medians of runs in turn, "
    about += f"{result['date']}: `{result['command']}`"
    hours = [[what, f"{value:,.0f}" if value >= 10 else f"{value:.1f}"] for what, value in billion["core_hours"].items()]
    terabytes = billion["terabytes"]
    paper = "A billion frames, on paper, from these figures: "
    paper += f"{billion['shards']:,} shards, {terabytes['packets']:.1f} TB of packets, {terabytes['jpeg_q80']:.0f} TB as such JPEGs. "
    paper += "Network and start of workers are not in it."
    first = lab_tables.table(["of one core", "images a second"], rows)
    return f"{first}\n{about}\n\n{paper}\n\n{lab_tables.table(['of a billion frames', 'core-hours'], hours)}"


def trial(result: dict[str, Any]) -> str:
    """A data set on two nodes, one of which is killed."""
    rows = []
    for name, what in (("one_process", "one process"), ("two_nodes_one_killed", "Ray, two nodes, one killed after a quarter")):
        found = result[name]
        rows.append([what, found["driver_mb_in_the_first_quarter"], found["driver_mb_at_most"], found["seconds"]])
    head = ["`percodec dataset predict`", "driver's memory, first quarter, MB", "at most, MB", "seconds"]
    same = "the same bytes" if result["same_bytes"] else "OTHER BYTES"
    about = f"{result['packets']:,} packets, the tests' tiny bundle; both leave {same}. {result['machine']['cpu']}, "
    about += f"{result['machine']['cores']} cores, load {result['load']}: the seconds say little. {result['date']}: `{result['command']}`"
    return f"{lab_tables.table(head, rows)}\n{about}\n"


RENDERERS: dict[str, Callable[[dict[str, Any]], str]] = {"bench_fleet": reading, "fleet_trial": trial}

__all__ = ["RENDERERS", "reading", "trial"]

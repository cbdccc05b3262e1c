"""Tables of what the uplink was tried with, and of the stream beside video codecs. For `tables.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lab_tables import table


def bench_codecs(result: dict[str, Any]) -> str:
    """percodec's stream and video codecs at its rate, from `bench_codecs.py`."""
    rows = []
    names = [name for name in result["cases"][0] if name not in ("bundle", "size", "fps", "frames", "percodec")]
    for case in result["cases"]:
        for name in ("percodec", *names):
            found = case[name]
            same = found.get("same_ms_ssim_kbit_s")
            cpu = f"{found['cpu_ms']:.1f}" + (f", {found['cpu_ms_packet']:.1f} after the network" if name == "percodec" else "")
            row = [case["bundle"], case["fps"], "`--stream`" if name == "percodec" else name, f"{found['kbit_s']:.0f}"]
            row += [f"{found['psnr_db']:.1f}", f"{found['ms_ssim']:.3f}", f"{100 * found['labels']:.1f} %", cpu]
            rows.append([*row, "-" if name == "percodec" else f"{same:.0f}" if same else "none"])
    head = ["bundle", "frames/s", "codec", "kbit/s", "PSNR, dB", "MS-SSIM", "same labels", "CPU to encode, ms", "kbit/s for our MS-SSIM"]
    width, height = result["cases"][0]["size"]
    about = f"Second half of `{result['video']}` at {width}x{height}, key frame every {result['key_every']}, no look-ahead, one thread. "
    about += f"{result['machine']['cpu']}, load average {result['load_average']}, {result['date']}: `{result['command']}`"
    return f"{table(head, rows)}\n{_tiers(result['tiers'], result['every'])}\n{about}\n"


def _tiers(tiers: list[dict[str, Any]], every: int) -> str:
    """Our own streams beside the first of them: bytes at its PSNR and at its MS-SSIM, between two bundles of a tier."""
    first, rows = tiers[0], []
    for tier in tiers:
        same = [_saved(tiers, tier, measure) for measure in ("psnr_db", "ms_ssim")]
        row = [f"`{tier['bundle']}`", f"{tier['kbit_s']:.0f}", f"{tier['psnr_db']:.2f}", f"{tier['ms_ssim']:.4f}"]
        rows.append([*row, *("" if one is None else f"{100 * one:+.0f} %" for one in same)])
    name = first["bundle"]
    head = ["bundle", "kbit/s at 25 frames/s", "PSNR, dB", "MS-SSIM", f"bytes at the PSNR of `{name}`", "bytes at its MS-SSIM"]
    return f"Of our own streams, every {every}th picture decoded:\n\n{table(head, rows)}"


def _saved(tiers: list[dict[str, Any]], tier: dict[str, Any], measure: str) -> float | None:
    """Bytes relative to the first tier's where `tier` and another of its name are as good as it, logarithms along a line; else None."""
    kind = tier["bundle"].rpartition("-")[0]
    points = sorted((t[measure], math.log(t["kbit_s"])) for t in tiers if t["bundle"].rpartition("-")[0] == kind)
    wanted = tiers[0][measure]
    if kind == tiers[0]["bundle"].rpartition("-")[0] or len(points) < 2 or not points[0][0] <= wanted <= points[-1][0]:
        return None
    (low, a), (high, b) = points[0], points[-1]
    return math.exp(a + (b - a) * (wanted - low) / (high - low)) / float(tiers[0]["kbit_s"]) - 1


def uplink_trial(result: dict[str, Any]) -> str:
    """Packets in the archive after kills, from `uplink_trial.py`."""
    rows = []
    for found in result["trials"]:
        archive, killed = found["archive"], ", ".join(f"{name} {count}" for name, count in found["killed"].items()) or "nothing"
        killed += "; the broker forgot what it had acknowledged" if found["trial"] == "forgets" else ""
        row = [
            killed,
            found["seconds"],
            archive["recordings"],
            archive["packets"],
            archive["equal"],
            archive["missing"] + archive["differ"],
        ]
        rows.append([*row, archive["twice"], found["resent"]])
    head = ["killed (-9)", "seconds", "logs", "packets in them", "in the archive, byte for byte", "missing or other", "twice", "resent"]
    first = result["trials"][0]
    about = (
        f"{first['vehicles']} vehicles by {first['cameras']} cameras at {first['fps']:.0f} frames/s, one of them a live `percodec run`. "
    )
    about += f"{result['machine']['cpu']}, {result['machine']['cores']} cores at a load average of up to "
    about += f"{max(one['load_average'] for one in result['trials'])}, {result['date']}: `{result['command']}`"
    return f"{table(head, rows)}\n{about}\n"


def bench_uplink(result: dict[str, Any]) -> str:
    """Cost, narrow link, tunnels and disk, from `bench_uplink.py`."""
    parts = {part: result[part]["trials"] if part in result else [] for part in ("cost", "narrow", "cut", "disk")}
    rows: list[list[Any]] = []
    how = [f"{part}: load average {result[part]['load_average']}, nice {result[part]['nice']}" for part in parts if part in result]
    for found in parts["cost"]:
        agent, bare = found["agent"], found["bare"]
        what = f"agent, {found['cameras']} camera{'s' * (found['cameras'] > 1)} at {found['fps']} frames/s"
        told = f"{agent['core_percent']:.1f} % of a core, {agent['ms_a_frame']:.2f} ms a frame, {agent['rss_mb']} MB; "
        told += f"{found['times_bare']:.2f} times a bare publisher of the same bytes, which has {bare['rss_mb']} MB"
        rows.append([what, told])
    for found in parts["narrow"]:
        live = found["live_ack_ms"]
        told = f"live p50 {live['p50']:.0f} ms, p99 {live['p99']:.0f} ms; {100 * found['link_used']:.0f} % of the link used"
        rows.append([f"{found['mbit_per_s']:.0f} Mbit/s, one camera beside a backlog that never ends", told])
    for found in parts["cut"]:
        archive = found["archive"]
        told = f"caught up {found['caught_up_s']:.0f} s after it; {archive['equal']} of {archive['packets']} packets in the archive, "
        told += f"{archive['twice']} twice, {found['resent']} resent"
        rows.append([f"tunnel of {found['cut_s']} s, {found['vehicles']} vehicles by {found['cameras']} cameras", told])
    for found in parts["disk"]:
        told = f"at most {found['largest_mb']:.1f} MB; {found['written']} written, {found['stored']} stored, {found['discarded']} discarded"
        rows.append([f"`--max-disk {found['limit_mb']}MB`, tunnel of {found['cut_s']} s", told])
    links = "networks of their own, shaped by the kernel" if result["link"] == "namespaces" else "a proxy on loopback"
    about = f"Links are {links}. {result['machine']['cpu']}, {result['machine']['cores']} cores, {result['date']}: "
    about += f"`{result['command']}` ({'; '.join(how)})"
    return f"{table(['what', 'measured'], rows)}\n{about}\n"


RENDERERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "bench_codecs": bench_codecs,
    "bench_uplink": bench_uplink,
    "uplink_trial": uplink_trial,
}

__all__ = ["RENDERERS"]

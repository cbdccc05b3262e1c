"""What do the results say? Writes the tables of the README and of the pages beside this file from results/; `--check` compares.

    <!-- table NAME -->  ...  <!-- end table -->        is filled from results/NAME-*.json, one table per machine

A figure that no file holds does not get into a page. The README's `summary` takes single figures from several results.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fleet_tables
import lab_tables
import uplink_tables

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
REGION = re.compile(r"(<!-- table (?P<name>[a-z_]+) -->\n)(?P<body>.*?)(<!-- end table -->)", re.DOTALL)


def demo(result: dict[str, Any]) -> str:
    """The table `percodec demo` prints, from `bench_demo.py`."""

    from percodec.runtime.run.report import render_table

    return f"```text\n{render_table(result).rstrip()}\n```\n"


def bundle(result: dict[str, Any]) -> str:
    """Rate, reconstruction and segmentation on real pictures, from `bench_bundle.py`."""
    found = result["result"]
    row = [found["pictures"], f"{found['bpp_coded']:.3f}", f"{found['packet_bytes_mean'] / 1000:.2f}"]
    row += [f"{found['psnr_db']:.2f}", f"{found['ms_ssim']:.3f}", f"{100 * found['miou']:.1f}"]
    table = lab_tables.table(["pictures", "coded, bpp", "packet, kB", "PSNR, dB", "MS-SSIM", "mIoU, 11 classes"], [row])
    return f"{table}\nBundle `{result['bundle']['name']}` {result['bundle']['digest'][:12]}, {result['date']}: `{result['command']}`\n"


def pipeline(result: dict[str, Any]) -> str:
    """Frames per second from memory, from `bench_pipeline.py`."""
    rows = []
    for workers, runs in result["workers"].items():
        last = runs["last"]
        stages = [f"{last['stages_ms'][stage]['p50']:.2f}" for stage in ("encode", "predict", "code")]
        rows.append([workers, f"{runs['fps_median']:.1f}", *stages, f"{last['rate']['bpp']:.3f}", f"{result['peak_rss_mb']:.0f}"])
    head = ["workers", "frames/s", "encode, ms", "predict, ms", "code, ms", "bpp", "peak RSS, MB"]
    machine, frame = result["machine"], result["bundle"]["frame"]
    return f"{lab_tables.table(head, rows)}\n{machine['cpu']}, {machine['cores']} cores; {frame[1]}x{frame[0]}, stages as medians.\n"


def rans(result: dict[str, Any]) -> str:
    """Symbols per second next to other coders, from `bench_rans.py`: whole packets, then each kernel's coding alone."""
    rows, alone = [], []
    kernels = list(result["cases"][0]["kernels"])
    for case in result["cases"]:
        for tables, tag, found in (("per channel", "percodec", case), ("pairs", "pairs", case.get("pairs"))):
            if not found:
                continue
            times, third = found["times_constriction"], found.get("times_compressai")
            row = [case["latent"], tables, found["packet_bytes"], f"{case['ideal_bytes']:.0f}"]
            row += [f"{case['msymbols_per_s'][f'{tag}_{way}']:.0f} ({times[way]:.1f} x)" for way in ("encode", "decode")]
            rows.append([*row, f"{third['encode']:.0f} x, {third['decode']:.0f} x" if third else "-"])
            ratios = [found["kernels"].get(kernel) for kernel in kernels]
            alone.append([case["latent"], tables, *(f"{r['encode']:.1f} x, {r['decode']:.1f} x" if r else "-" for r in ratios)])
    head = ["latent", "tables", "packet, bytes", "ideal, bytes", "encode", "decode", "encode, decode beside CompressAI"]
    about = f"{result['machine']['cpu']}, one thread, constriction {result['versions']['constriction']}, {result['date']}"
    kernel_head = ["latent", "tables", *(f"{kernel}: encode, decode" for kernel in kernels)]
    return (
        f"{about}: `{result['command']}`\n\n{lab_tables.table(head, rows)}\n"
        f"Each kernel, the lanes given, beside constriction:\n\n{lab_tables.table(kernel_head, alone)}"
    )


def precision(result: dict[str, Any]) -> str:
    """What each precision costs and saves on the CPU, from `bench_precision.py`."""
    rows = []
    for r in result["rows"]:
        if r["session"] == "fast":
            name = r["precision"]
            costs = [f"{100 * r['symbols_differ']:.2f} %", f"{100 * r['bpp_change']:+.2f} %", f"{r['psnr_drop']:.2f}"]
            times = [f"{result['cpu_ms_median'][name]:.1f}", f"{result['times_faster_than_fp32'][name]:.2f} x"]
            rows.append([name.upper(), f"{100 * r['miou']:.2f}", f"{round(-100 * r['miou_drop'], 2) + 0:+.2f}", *costs, *times])
    head = ["precision", "mIoU", "against FP32", "symbols that differ", "coded size", "PSNR lost, dB", "encoder + head, ms", "speed"]
    machine, calibration = result["machine"], result["calibration"]
    about = (
        f"ONNX Runtime on {machine['cpu']}, one thread, CPU time, medians of alternating runs; ranges from {calibration['frames']} frames"
    )
    return f"{lab_tables.table(head, rows)}\n{about} of {calibration['data']}; {result['date']}: `{result['command']}`\n"


def contexts(result: dict[str, Any]) -> str:
    """What tables of pairs and tables by neighbours save and cost, from `bench_contexts.py`."""
    rows = []
    for case in result["cases"]:
        for name in ("pairs", "contexts"):
            if name not in case["speed_of_order0"]:
                continue
            sizes = [f"{s['bpp']['order0']:.3f} -> {s['bpp'][name]:.3f} (-{100 * s['saved'][name]:.1f} %)" for s in case["sets"].values()]
            speed = case["speed_of_order0"][name]
            rows.append([case["bundle"], name, *sizes, f"{speed['encode']:.2f} x", f"{speed['decode']:.2f} x"])
    head = ["bundle", "tables", *(f"{name}, bpp" for name in result["cases"][0]["sets"]), "encode, beside one table per channel", "decode"]
    return f"{lab_tables.table(head, rows)}\n{result['machine']['cpu']}, one thread, {result['date']}: `{result['command']}`\n"


def steps(result: dict[str, Any]) -> str:
    """What contexts save on latents of uniform steps, and the coder's speed, from `bench_steps.py`."""
    rows = []
    for case in result["cases"]:
        sizes = [f"{s['order0_bpp']:.3f} -> {s['bpp']:.3f} (-{100 * s['saved']:.1f} %)" for s in case["sets"].values()]
        over = max(s["over_ideal"] for s in case["sets"].values())
        timed = case["speed"]
        rate = []
        for way in ("encode", "decode"):
            gain = timed["milliseconds"][f"scalar_{way}"] / timed["milliseconds"][f"avx2_{way}"]
            rate.append(f"{timed['gsymbols_per_s'][f'avx2_{way}']:.2f} ({gain:.1f} x)")
        rows.append([f"{case['step']}", *sizes, f"{100 * over:.2f} %", f"{timed['bpp']:.2f}", f"{100 * timed['coded']:.0f} %", *rate])
    head = ["step", *(f"{name}, bpp" for name in result["cases"][0]["sets"]), "over the ideal length", "1080p: bpp", "symbols coded"]
    head += ["encode, Gsymbol/s (beside plain C++)", "decode"]
    about = f"{result['machine']['cpu']}, AVX2, one thread, CPU time, a machine of 2 cores with a load of {result['load'][0]:.0f}"
    return f"{lab_tables.table(head, rows)}\n{about}; {result['date']}: `{result['command']}`\n"


def encoders(result: dict[str, Any]) -> str:
    """What an encoder costs on a 1080p picture and gives for it, from `bench_encoders.py`."""
    rows = []
    for row in result["rows"]:
        found = []
        for s in row["sets"].values():
            others = (f"{s['others'][c]['ms_ssim']:.3f}" if s["others"][c]["ms_ssim"] else "-" for c in ("jpeg", "webp", "avif"))
            found += [f"{s['bpp']:.3f}", f"**{s['ms_ssim']:.3f}** ({', '.join(others)})"]
        cost = f"{row['cpu_ms']:.1f} ({row['times_jpeg']:.2f}, {row['times_avif']:.3f})"
        rows.append([row["bundle"], f"{row['encoder']}, {row['kmac_per_pixel']:.2f}", cost, *found])
    sets = [h for name in result["rows"][0]["sets"] for h in (f"{name.replace('_', ' ')}, bpp", "MS-SSIM (JPEG, WebP, AVIF at that rate)")]
    head = ["bundle", "encoder, kMAC/pixel", "1080p picture to packet, ms (times JPEG's, AVIF's)", *sets]
    about = f"INT8, one thread, CPU time; JPEG: libjpeg-turbo, quality 80, {result['jpeg_q80_cpu_ms']:.1f} ms; AVIF: speed 6, "
    about += f"{result['avif_s6_cpu_ms']:.0f} ms"
    return f"{lab_tables.table(head, rows)}\n{about}. {result['machine']['cpu']}, {result['date']}: `{result['command']}`\n"


def perception(result: dict[str, Any]) -> str:
    """A prediction with the codec in front and without, from `bench_perception.py`."""
    rows, widths = [], result["cost"]
    decoded = {way: "cvpr18" if "cvpr18" in way else "theis3" for way in next(iter(widths.values())) if "decode" in way}
    far = next(iter(decoded))
    names = {"resnet50": "picture, ResNet-50", **{way: f"packet, {name}'s decoder, ResNet-50" for way, name in decoded.items()}}
    for way in next(iter(widths.values())):
        network = way.rpartition(", ")[2]
        latent = network.replace("cresnet", "cResNet-")
        words = names.get(way) or (f"packet, {latent}" if "received" in way else f"picture, packet, {latent}")
        found = [f"{r['map']:.3f}" for r in result["rows"] if r["network"] == network] if way not in decoded else []
        first = far if "received" in way else "resnet50"
        times = [f"{w[way]['cpu_ms']:.2f} ({w[way]['cpu_ms'] / w[first]['cpu_ms']:.2f})" for w in widths.values()]
        rows.append([words, ", ".join(found) or "-", *times])
    head = ["from, through", "mAP, seeds 1 and 2", *(f"width {w}, ms (times ResNet-50's way)" for w in widths)]
    codec = result["codec"]
    facts = f"codec `{codec['name']}`, C = {codec['channels']}, {result['bpp']:.2f} bpp; {result['crops']} crops of 224x224 of CamVid val; "
    facts += f"INT8, batch 1, one thread, CPU time; {result['machine']['cpu']}, {result['date']}"
    return f"{lab_tables.table(head, rows)}\n{facts}: `{result['command']}`\n"


def video(result: dict[str, Any]) -> str:
    """What predicted packets save and cost, and which frames their tables should come from, from `bench_video.py`."""
    rows = []
    alone = [name for name in result["cases"][0]["saved"] if name != "stream"]
    for case in result["cases"]:
        size, saved, speed = case["bytes_per_frame"], case["saved"], case["speed_of_intra"]
        row = [case["bundle"], f"{size['intra']:.0f}", f"{size['stream']:.0f}"]
        row += [f"{-100 * saved[name]:+.1f} %" for name in ("stream", *alone)]
        rows.append([*row, f"{speed['encode']:.2f} x", f"{speed['decode']:.2f} x"])
    head = ["bundle", "intra, bytes a frame", "stream", "saved", *(f"{name} alone" for name in alone), "encode, beside intra", "decode"]
    facts = f"Second half of `{result['video']}`, a key packet every {result['key_every']} frames; {result['machine']['cpu']}, one thread"
    return f"{lab_tables.table(head, rows)}\n{facts}, {result['date']}: `{result['command']}`\n"


def stream(result: dict[str, Any]) -> str:
    """What `percodec run --stream` saves with the bundles as they are, and whether it is exact, from `bench_stream.py`."""
    rows = []
    for found in result["bundles"]:
        half, whole, cut = found["saved_second_half"], found["saved_bytes_per_frame"], found["cut"]
        size = f"{found['alone']['second_half']:.0f} -> {found['stream']['second_half']:.0f} (-{100 * half:.1f} %)"
        same = "equal" if found["stream"]["replay"]["equal"] else "differs"
        decoded = f"{cut['differ']} of {sum(cut['frames_decoded'])} differ"
        rows.append([found["bundle"], size, f"-{100 * whole:.1f} %", same, decoded])
    head = ["bundle", "second half, bytes a frame", "whole clip", "replay", f"frames of {result['bundles'][0]['cut']['cuts']} cut logs"]
    return f"{lab_tables.table(head, rows)}\n`{result['video']}`, {result['machine']['cpu']}, {result['date']}: `{result['command']}`\n"


def runtime(result: dict[str, Any]) -> str:
    """percodec beside bare ONNX Runtime, from `bench_runtime.py`."""
    rows = [
        [f"a call beyond ONNX Runtime's own I/O binding, {name}", f"{found['overhead_us']:.1f} us on {found['bare_us']:.0f} us"]
        for name, found in result["overhead"].items()
    ]
    flow, memory = result["throughput"], result["memory"]
    rows.append(
        ["frames per second against 1 / slowest stage", f"{flow['efficiency']:.2f} ({flow['fps']:.1f} /s, {flow['slowest_stage']})"]
    )
    rows.append([f"growth of resident memory over {memory['frames']} frames", f"{memory['growth_bytes_per_frame']:.1f} bytes per frame"])
    rows.append(["CPU of a pipeline that waits for its camera", f"{result['idle']['cpu_percent']:.2f} % of a core"])
    command = f"{result['machine']['cpu']}, {result['machine']['cores']} cores, {result['date']}: `{result['command']}`"
    return f"{lab_tables.table(['what', 'measured'], rows)}\n{command}\n"


def profile_paths(result: dict[str, Any]) -> str:
    """The paths side by side of a `percodec profile --backends ...,decode-first,rgb`."""
    found, rows = result["paths"], []
    for name, path in found["paths"].items():
        steps = ", ".join(f"{step} {f['p50']:.1f}" for step, f in path["steps_ms"].items() if f["p50"] >= 0.05)
        rows.append(
            [name, path["precision"], f"{path['total_ms']['p50']:.1f}", f"{path['cpu_ms_per_frame']:.1f}", f"{path['ratio']:.2f}", steps]
        )
    head = ["path", "precision", "ms, median", "CPU ms", "ratio", "steps, ms"]
    machine = f"{result['machine']['cpu']}, one thread per network, {found['frames']} frames in turn, {result['date'][:10]}"
    return f"{lab_tables.table(head, rows)}\n`{result['bundle']['name']}`; RGB network `{found['rgb']}`; {machine}.\n"


def summary(results: Path) -> str:
    """The README's few figures, each from the newest result of its benchmark."""

    def every(name: str) -> list[Any]:
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob(f"{name}-*.json"))]

    def newest(name: str) -> Any:
        return max(every(name), key=lambda result: str(result.get("date", "")))

    ran, flow, pictures = newest("bench_demo"), newest("bench_pipeline"), newest("bench_bundle")["result"]
    age, cpu = ran["stages_ms"]["age"], f"{ran['machine']['cpu']}, {ran['machine']['cores']} cores"
    frame = "x".join(str(side) for side in reversed(ran["bundle"]["frame"]))
    encoders_found, saved = newest("bench_encoders"), [found["saved_second_half"] for found in newest("bench_stream")["bundles"]]
    fast = next(row for row in encoders_found["rows"] if row["bundle"] == "fast-0.330")
    val = fast["sets"]["camvid_val"]
    blocks = sorted(every("bench_blocks"), key=lambda result: "integers" in result["machine"])  # it decides what bytes cost
    block, *others = [next(row for row in found["rows"] if row["bundle"] == "block-0.28") for found in blocks]
    times = [f"{row['times_jpeg']:.2f}" for row in (block, *others)]
    processors = [", ".join(filter(None, (found["machine"]["cpu"], found["machine"].get("integers")))) for found in blocks]
    ours, theirs = block["sets"]["kodak"]["decoders"]["decoder"], block["sets"]["kodak"]["others"]["webp"]
    rows = [
        ["age of a prediction, from frame in to labels out", f"{age['p50']:.1f} ms, p99 {age['p99']:.1f} ms", f"{frame}, {cpu}, no GPU"],
        ["frames a second on one worker", f"{flow['workers']['1']['fps_median']:.0f}", "the same, frames from memory"],
        [
            "the packet of a frame",
            f"{pictures['packet_bytes_mean'] / 1000:.1f} kB, {pictures['bpp_coded']:.3f} bits a pixel",
            f"CamVid `val`, {pictures['pictures']} pictures",
        ],
        ["mIoU of 11 classes, straight from the latent", f"{100 * pictures['miou']:.1f} %", "the same; no unseen drive, see Limits"],
        ["1080p picture to packet with `fast`", f"{fast['times_jpeg']:.2f} times the CPU time of JPEG", encoders_found["machine"]["cpu"]],
        [
            "MS-SSIM of `fast` at that rate",
            f"{val['ms_ssim']:.3f}; JPEG has {val['others']['jpeg']['ms_ssim']:.3f}",
            f"CamVid `val`, {val['bpp']:.3f} bits a pixel",
        ],
        ["1080p picture to packet with `block`", f"{' and '.join(times)} times the CPU time of JPEG", "; ".join(processors)],
        [
            "PSNR and MS-SSIM of `block`",
            f"{ours['psnr_db']:.1f} dB, {ours['ms_ssim']:.3f}; WebP has {theirs['psnr_db']:.1f} dB, {theirs['ms_ssim']:.3f}",
            f"Kodak, {block['sets']['kodak']['bpp']:.3f} bits a pixel",
        ],
        ["bytes that `--stream` saves", f"{100 * min(saved):.0f} to {100 * max(saved):.0f} %", f"half of a drive, {len(saved)} bundles"],
    ]
    return lab_tables.table(["what", "measured", "on"], rows)


def ros(result: dict[str, Any]) -> str:
    """What ROS adds, from `bench_ros.py`."""
    way, idle, lives = result["latency"], result["idle"], result["lives"]
    rows = [
        ["image published to labels published, p50", f"{way['total_ms']['p50']:.1f} ms"],
        ["of it from the image's arrival to the prediction, p50", f"{way['receive_to_result_ms']['p50']:.1f} ms"],
        ["of it ROS: both messages and the node around the pipeline", f"{way['ros_share_ms_p50']:.1f} ms"],
        ["a node without images", f"{idle['core_percent']:.2f} % of a core"],
        [f"growth of memory over {lives['rounds']} lives of a node", f"{lives['growth_mb']:.1f} MB"],
    ]
    machine = result["machine"]
    about = f"{machine['cpu']}, {machine['cores']} cores, load average {result['load_average']:.1f}, {result['scheduling']} scheduling; "
    about += f"480x360, {way['images']} images, {result['ros']}, {result['date']}: `{result['command']}`"
    return f"{lab_tables.table(['what', 'measured'], rows)}\n{about}\n"


def bag(result: dict[str, Any]) -> str:
    """What `percodec bag compress` makes of a recorded drive, from `bench_bag.py`."""
    rows = []
    for found in result["rows"]:
        equal = found["at_equal_ms_ssim"]
        others = [f"{equal[name] / 1000:.1f} kB" if equal[name] else "none as low" for name in ("jpeg", "avif")]
        size = f"{found['bytes_per_picture'] / 1000:.1f} kB"
        speed = f"{found['pictures_per_second']:.1f} /s"
        name = found["bundle"] + (", --stream" if found["stream"] else "")
        rows.append([name, f"{found['raw_ratio']:.0f} x", size, f"{found['ms_ssim']:.4f}", *others, speed])
    head = ["bundle", "raw bag over ours", "a packet", "MS-SSIM", "JPEG as like", "AVIF as like", "pictures"]
    quality, machine = result["jpeg80"], result["machine"]
    about = f"`{result['video']}` at {'x'.join(map(str, result['size']))}, two cameras of {result['frames']} pictures, a raw bag of "
    about += f"{result['raw_bytes'] / 1e9:.2f} GB; JPEG at quality 80: {quality['bytes'] / 1000:.1f} kB a picture, MS-SSIM "
    about += f"{quality['ms_ssim']:.4f}. {machine['cpu']}, {machine['cores']} cores, load average {result['load_average']:.1f} at the start"
    return f"{lab_tables.table(head, rows)}\n{about}, {result['date']}: `{result['command']}`\n"


def serve(result: dict[str, Any]) -> str:
    """CPU of the server beside that of the bare loop, and a good client beside bad ones, from `bench_serve.py`."""
    names = {
        "group": f"{result['group']} packets a request, gRPC",
        "single_grpc": "one packet a request, gRPC",
        "single_http": "one packet, curl's way",
    }
    bad, rows, idle = result["bad_clients"], [], ""
    for part, where in (("groups", ""), ("ray", ", on Ray")):
        if found := result.get(part):
            ratio = found["ratio"], found["ratio_range"]
            rows += [[text + where, f"{ratio[0][key]:.2f}", " to ".join(f"{n:.2f}" for n in ratio[1][key])] for key, text in names.items()]
            idle = f"Ray itself takes {found['idle_cores']:.2f} of a core, also while nobody asks.\n" if part == "ray" else ""
    table = lab_tables.table(["", "CPU a frame, over the bare loop's", "range of rounds"], rows)
    said = f"Beside clients whose {bad['bad_requests']} requests were refused, "
    said += f"a good client's p99 was {bad['p99_ratio']:.2f} times that without them."
    machine, load = result["machine"], result["load"]
    note = f" {result['note']}" if result["note"] else ""
    return f"{table}\n{idle}{said}\n{machine['cpu']}, {machine['cores']} cores, load {load['before']} to {load['after']}.{note}\n"


RENDERERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "bench_bag": bag,
    "familiarity": lab_tables.familiarity,
    "bench_blocks": lab_tables.blocks,
    "bench_demo": demo,
    "bench_bundle": bundle,
    "bench_pipeline": pipeline,
    "bench_rans": rans,
    "bench_contexts": contexts,
    "bench_steps": steps,
    "bench_video": video,
    "bench_stream": stream,
    "bench_encoders": encoders,
    "encoder_search": encoders,
    "bench_perception": perception,
    "bench_precision": precision,
    "bench_ros": ros,
    "bench_runtime": runtime,
    "profile_paths": profile_paths,
    **fleet_tables.RENDERERS,
    "bench_serve": serve,
    **lab_tables.RENDERERS,
    **uplink_tables.RENDERERS,
}


FILES = {
    "restoration_methods": "restoration",
    "restorers": "restoration",
    "lab_joint_gain": "lab_joint",
}  # tables of a file that has another's name


def filled(text: str, results: Path) -> str:
    """`text` with every region rendered anew; a region without a result becomes empty."""

    def render(match: re.Match[str]) -> str:
        name = match["name"]
        if name == "summary":
            return f"{match[1]}{summary(results)}{match[4]}"
        if name not in RENDERERS:
            raise SystemExit(f"no table is called {name!r}; there are {', '.join(RENDERERS)}")
        found = sorted(results.glob(f"{FILES.get(name, name)}-*.json"))
        body = "\n".join(RENDERERS[name](json.loads(path.read_text(encoding="utf-8"))) for path in found)
        return f"{match[1]}{body}{match[4]}"

    return REGION.sub(render, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is not what the results say")
    args = parser.parse_args()
    stale = False
    runtime = ROOT / "runtime"
    guides = (runtime / "README.md", runtime / "ros2/percodec_ros/README.md", runtime / "percodec/runtime/uplink/UPLINK.md")
    for page in (ROOT / "README.md", *guides, *sorted(HERE.glob("*.md"))):
        before = page.read_text(encoding="utf-8")
        after = filled(before, HERE / "results")
        if before == after:
            continue
        stale = True
        if args.check:
            print(
                f"{page.relative_to(ROOT)}: its tables are not those of the results; run: python benchmarks/tables.py",
                file=sys.stderr,
            )
        else:
            page.write_text(after, encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: tables refreshed")
    return int(args.check and stale)


if __name__ == "__main__":
    raise SystemExit(main())

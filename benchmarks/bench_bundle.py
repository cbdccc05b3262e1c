"""What does a bundle reach on real pictures: coded bytes, reconstruction and segmentation accuracy?

    python benchmarks/bench_bundle.py --camvid PATH [--bundle FOLDER]

Runs the bundle's ONNX graphs and its coder on CamVid's validation pictures. Without --camvid they are looked for in
$PERCODEC_DATA/camvid. Accuracy does not depend on the machine beyond rounding; it is recorded all the same. Needs the export extra.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shlex
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, default=None, help="CamVid folder with val/ and val_labels/")
    parser.add_argument("--bundle", type=Path, default=None, help="bundle folder (default: road-edge)")
    parser.add_argument("--split", default="val")
    args = parser.parse_args()
    camvid = args.camvid or (Path(os.environ["PERCODEC_DATA"]) / "camvid" if "PERCODEC_DATA" in os.environ else None)
    if camvid is None:
        print("bench_bundle: skipped, it needs --camvid PATH (real pictures are not part of the project)")
        return 0

    from percodec.export.data import load_camvid
    from percodec.export.evaluate.bundle import evaluate_bundle
    from percodec.runtime.session import DEFAULT_BUNDLE
    from percodec.sdk.bundle import Bundle
    from percodec.sdk.machine import machine_info, versions

    bundle = Bundle.open(args.bundle or DEFAULT_BUNDLE)
    machine = machine_info()
    result = {
        "bench": "bundle",
        "bundle": {"name": bundle.name, "digest": bundle.digest},
        "machine": machine,
        "versions": versions(),
        "command": shlex.join(["python", "benchmarks/bench_bundle.py", "--camvid", "PATH", "--split", args.split]),
        "date": datetime.date.today().isoformat(),
        "result": evaluate_bundle(bundle, load_camvid(camvid, args.split)),
    }
    name = re.sub(r"[^a-z0-9]+", "-", f"{machine['cpu']} {machine['cores']}c".lower()).strip("-")
    out = Path(__file__).parent / "results" / f"bench_bundle-{name}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    json.dump(result["result"], sys.stdout, indent=1)
    print(f"\n{out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

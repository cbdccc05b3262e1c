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
import shlex
from pathlib import Path

import record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, default=None, help="CamVid folder with val/ and val_labels/")
    parser.add_argument("--bundle", type=Path, default=None, help="bundle folder (default: road)")
    parser.add_argument("--split", default="val")
    record.add_arguments(parser)
    args = parser.parse_args()
    camvid = args.camvid or (Path(os.environ["PERCODEC_DATA"]) / "camvid" if "PERCODEC_DATA" in os.environ else None)
    if camvid is None:
        print("bench_bundle: skipped, it needs --camvid PATH (real pictures are not part of the project)")
        return 0

    from percodec.export.data import load_camvid
    from percodec.export.evaluate.bundle_metrics import evaluate_bundle
    from percodec.runtime.session import DEFAULT_BUNDLE
    from percodec.sdk.bundle import Bundle
    from percodec.sdk.machine import machine_info, versions

    bundle = Bundle.open(args.bundle or DEFAULT_BUNDLE)
    result = {
        "bench": "bundle",
        "bundle": {"name": bundle.name, "digest": bundle.digest},
        "machine": machine_info(),
        "versions": versions(),
        "command": shlex.join(["python", "benchmarks/bench_bundle.py", "--camvid", "PATH", "--split", args.split]),
        "date": datetime.date.today().isoformat(),
        "result": evaluate_bundle(bundle, load_camvid(camvid, args.split)),
    }
    print(json.dumps(result["result"], indent=1))
    record.write_result(args, "bench_bundle", result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

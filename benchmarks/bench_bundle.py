"""What does a bundle reach on real pictures: coded bytes, reconstruction and segmentation accuracy?

    python benchmarks/bench_bundle.py --camvid PATH [--bundle FOLDER] [--machine NAME]

Runs the bundle's ONNX graphs and its coder on CamVid's validation pictures. Accuracy does not depend on the machine
beyond rounding; the machine is recorded all the same. Needs the export extra.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shlex
import sys
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, default=None, help="CamVid folder with val/ and val_labels/")
    parser.add_argument("--bundle", type=Path, default=None, help="bundle folder (default: road-edge)")
    parser.add_argument("--split", default="val")
    parser.add_argument("--machine", default="cpu", help="short name used in the result's file name")
    args = parser.parse_args()
    if args.camvid is None:
        print("bench_bundle: skipped, it needs --camvid PATH (real pictures are not part of the project)")
        return 0

    from percodec.export.data import load_camvid
    from percodec.export.evaluate.bundle import evaluate_bundle
    from percodec.sdk.bundle import Bundle

    folder = args.bundle or Path(str(files("percodec.runtime") / "bundles" / "road-edge"))
    bundle = Bundle.open(folder)
    result = {
        "bench": "bundle",
        "bundle": {"name": bundle.name, "digest": bundle.digest},
        "machine": {"name": args.machine, "system": platform.platform(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("numpy", "onnxruntime", "torch", "percodec")},
        "command": shlex.join(["python", "benchmarks/bench_bundle.py", "--camvid", "PATH", "--split", args.split]),
        "date": datetime.date.today().isoformat(),
        "result": evaluate_bundle(bundle, load_camvid(args.camvid, args.split)),
    }
    out = Path(__file__).parent / "results" / f"bench_bundle-{args.machine}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    json.dump(result["result"], sys.stdout, indent=1)
    print(f"\n{out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

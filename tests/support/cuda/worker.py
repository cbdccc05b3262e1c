"""`percodec.runtime.supervise.worker` with the fake driver under it. PERCODEC_FAKE_FAULT: CALL:CODE:AFTER, of the first worker only."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from support.cuda.fake_tensorrt import fake_tensorrt

if __name__ == "__main__":
    library = ctypes.CDLL(os.environ["PERCODEC_FAKE_DRIVER"], ctypes.RTLD_GLOBAL)
    library.fake_reset(ctypes.c_uint64(1))
    trt = sys.modules["tensorrt"] = fake_tensorrt(library)
    trt.compute = lambda name, given: {"symbols": given[::37] % 6, "labels": given % 3}[name]
    once = Path(os.environ["PERCODEC_FAKE_ONCE"])
    if not once.exists():
        once.touch()
        call, code, after = os.environ["PERCODEC_FAKE_FAULT"].split(":")
        if call == "hang":
            plain = library.fake_hang
            plain(int(after))
        else:
            library.fake_fail(call.encode(), int(after), int(code))
    from percodec.runtime.supervise.worker import main

    raise SystemExit(main())

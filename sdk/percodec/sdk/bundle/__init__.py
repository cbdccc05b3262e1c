"""What ships to a vehicle: graphs, tables, labels, self-test vectors, and where they came from. Format: BUNDLE.md beside this file.

Which one should I use? `Bundle.open` to read; `write_bundle` to make one; `extend_bundle` to add heads or stream tables to one. A
`Bundle` in hand has been checked whole: every file is the one its manifest names, and nothing in it can run code.
"""

from __future__ import annotations

from percodec.sdk.bundle.bundle import Bundle
from percodec.sdk.bundle.onnx_ops import OPERATORS
from percodec.sdk.bundle.parts import GraphInfo, Label, SelfTest, Step, TensorInfo
from percodec.sdk.bundle.writer import extend_bundle, write_bundle

__all__ = ["OPERATORS", "Bundle", "GraphInfo", "Label", "SelfTest", "Step", "TensorInfo", "extend_bundle", "write_bundle"]

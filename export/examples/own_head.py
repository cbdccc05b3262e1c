"""A network of one's own that reads a bundle's latents, as an ONNX file:  python own_head.py BUNDLE edges.onnx

What `percodec export --head NAME=FILE.onnx:array` takes: one input, `symbols` uint8 [N,C,h,w]; N free; outputs of any name and shape.
`torch.onnx.export` writes such a file from a module that begins with `symbols.float()`. This one, without torch, gives two arrays:
`strength` float32 [N,h,w], how far each cell of the latent stands out of its neighbours, and `mean` float32 [N], over the picture.
"""

from __future__ import annotations

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from percodec.sdk import Bundle


def network(channels: int, height: int, width: int) -> onnx.ModelProto:
    laplace = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], np.float32)
    weights = np.broadcast_to(laplace, (channels, 1, 3, 3)).copy()
    nodes = [
        helper.make_node("Cast", ["symbols"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["levels", "laplace"], ["differences"], group=channels, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["differences"], ["sizes"]),
        helper.make_node("ReduceMean", ["sizes", "channel"], ["strength"], keepdims=0),
        helper.make_node("ReduceMean", ["strength", "cells"], ["mean"], keepdims=0),
    ]
    constants = {"laplace": weights, "channel": np.array([1], np.int64), "cells": np.array([1, 2], np.int64)}
    graph = helper.make_graph(
        nodes,
        "edges",
        [helper.make_tensor_value_info("symbols", TensorProto.UINT8, ["N", channels, height, width])],
        [
            helper.make_tensor_value_info("strength", TensorProto.FLOAT, ["N", height, width]),
            helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["N"]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


if __name__ == "__main__":
    onnx.save(network(*Bundle.open(sys.argv[1]).latent_shape), sys.argv[2])
    print(f"wrote {sys.argv[2]}")

"""Loaded networks: ONNX Runtime, TensorRT, CUDA, and the slots made over them."""

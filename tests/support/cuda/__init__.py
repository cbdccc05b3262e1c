"""A CUDA driver and a TensorRT that are not there, and what is run over them (tests/runtime/test_cuda.py)."""

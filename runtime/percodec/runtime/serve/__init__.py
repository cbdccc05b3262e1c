"""Predictions for whoever has packets, over gRPC and HTTP: the Open Inference Protocol. SERVE.md has it all."""

import os

# Read when gRPC begins. With its handlers of fork(), one in twenty processes that a busy server starts aborts before its program runs.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

"""Predictions for whoever has packets, over gRPC and HTTP: the Open Inference Protocol. SERVE.md has it all."""

"""Metrics on images and label maps."""

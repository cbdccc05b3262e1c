"""The one way to read a picture, for whoever stands on runtime: training and evaluation see exactly what the vehicle sees."""

from percodec.runtime.capture.images import IMAGE_SUFFIXES, decode_image, is_picture_file, read_image, write_image

__all__ = ["IMAGE_SUFFIXES", "decode_image", "is_picture_file", "read_image", "write_image"]

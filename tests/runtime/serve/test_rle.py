"""Masks of `labels_rle`, read by a decoder that was written from COCO's description alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.serving import Serving

from percodec.runtime import Session
from percodec.runtime.serve.messages import message
from percodec.runtime.serve.requests import bytes_of, elements_of
from percodec.runtime.serve.rle import rle_of
from percodec.sdk import Latent


def mask_of(segmentation: dict[str, Any]) -> NDArray[np.bool_]:
    counts: list[int] = []
    characters = iter(segmentation["counts"])
    for character in characters:
        value, shift = 0, 0
        while True:
            low = ord(character) - 48
            value |= (low & 31) << shift
            shift += 5
            if not low & 32:
                break
            character = next(characters)
        if low & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    height, width = segmentation["size"]
    pixels = np.zeros(height * width, bool)
    at = 0
    for k, count in enumerate(counts):
        assert count > 0 or k == 0
        pixels[at : at + count] = k % 2
        at += count
    assert at == height * width
    return pixels.reshape(width, height).T


def labels_of(data: bytes, frame_id: int) -> NDArray[np.int64]:
    found = json.loads(data)
    assert {one["image_id"] for one in found} == {frame_id}
    masks = {one["category_id"]: mask_of(one["segmentation"]) for one in found}
    assert len(masks) == len(found)
    assert all(mask.any() for mask in masks.values())
    np.testing.assert_array_equal(np.sum(list(masks.values()), axis=0), 1)  # each pixel has one class
    return np.asarray(sum(value * mask for value, mask in masks.items()))


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros((1, 1), np.uint8),
        np.full((7, 5), 3, np.uint8),
        np.arange(35, dtype=np.uint8).reshape(7, 5),
        np.repeat(np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4), 100, axis=0), 90, axis=1),
        np.random.default_rng(1).integers(0, 2, (64, 96), dtype=np.uint8),
        np.random.default_rng(2).integers(0, 300, (33, 50), dtype=np.int32),
        np.triu(np.ones((1200, 1600), np.uint8)),
    ],
    ids=["one", "plain", "each", "blocks", "noise", "many", "large"],
)
def test_masks_are_the_labels(labels: NDArray[Any]) -> None:
    np.testing.assert_array_equal(labels_of(rle_of(labels, 9), 9), labels)


def test_counts_are_written_as_coco_writes_them() -> None:
    assert json.loads(rle_of(np.zeros((2, 2), np.uint8), 1)) == [
        {"image_id": 1, "category_id": 0, "segmentation": {"size": [2, 2], "counts": "04"}}
    ]
    half = np.zeros((4, 8), np.uint8)
    half[:, 4:] = 1
    assert [one["segmentation"]["counts"] for one in json.loads(rle_of(half, 1))] == ["0`0`0", "`0`0"]


def test_a_server_gives_them(server: Serving, session: Session, latents: list[Latent], packets: list[bytes]) -> None:
    import grpc

    request = message("ModelInferRequest")(model_name="rich")
    request.inputs.add(name="packet", datatype="BYTES", shape=[len(packets)])
    request.raw_input_contents.append(bytes_of(packets))
    request.outputs.add(name="labels_rle")
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        answer = message("ModelInferResponse").FromString(call(request.SerializeToString(), timeout=60))
    assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == ("BYTES", [len(packets)])
    found = elements_of(answer.raw_output_contents[0], len(packets))
    for latent, data in zip(latents, found, strict=True):
        np.testing.assert_array_equal(labels_of(data, latent.frame_id), session.predict(latent).labels)

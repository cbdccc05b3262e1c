"""Coarser latents for fewer bytes: heads and packets see the same, no packet is too long, the average is what was asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.tiny_bundle import CHANNELS, LEVELS, make_bundle

pytest.importorskip("onnxruntime", reason="needs the ort extra")

from percodec.runtime.pipeline.rate import RateControl
from percodec.sdk.bundle import Bundle, Step
from percodec.sdk.cli import main
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import UsageError
from percodec.sdk.log import read_log

STEPS = [Step(1.0, 3, LEVELS)] * CHANNELS


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("rate") / "steps", name="steps", steps=STEPS)


def control(bundle: Bundle, **asked) -> RateControl:
    return RateControl(bundle, PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:]), **asked)


def latents(bundle: Bundle, count: int):
    rng = np.random.default_rng(4)
    for k in range(count):
        yield np.clip(np.rint(rng.laplace(3, 0.3 + 0.5 * (k % 7), bundle.latent_shape)), 0, LEVELS - 1).astype(np.uint8)


def test_the_last_channels_lose_the_smallest_symbols_first(bundle):
    symbols = np.full(bundle.latent_shape, 2, np.uint8)
    symbols[:, 0, 0] = 5
    coarse = control(bundle)
    levels = []
    for level in range(7):
        coarse._level = float(level)
        changed = symbols.copy()
        coarse.coarsen(changed)
        levels.append([int((changed[c] != symbols[c]).sum()) for c in range(CHANNELS)])
    small = symbols[0].size - 1
    assert levels[:4] == [[0, 0, 0, 0], [0, 0, 0, small], [0, 0, small, small], [0, small, small, small]]
    assert levels[6] == [0, small + 1, small + 1, small + 1]  # and then those two steps from 0
    assert all(row[0] == 0 for row in levels)


def test_no_packet_is_longer_than_allowed_and_what_fits_stays(bundle):
    coder = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])
    sizes = [len(coder.encode(z, 0, 0)) for z in latents(bundle, 40)]
    for most in (min(sizes), sum(sizes) // 40, max(sizes)):
        limited = control(bundle, max_bytes=most)
        for size, symbols in zip(sizes, latents(bundle, 40), strict=True):
            before, level = symbols.copy(), limited._level
            limited.coarsen(symbols)
            assert len(limited.encode(symbols, 0, 0)) <= most
            if size <= most and level == 0:
                np.testing.assert_array_equal(symbols, before)
    assert limited.report()["coarseness_max"] == 0


@pytest.mark.parametrize("share", [0.6, 0.8, 2.0])
def test_packets_take_what_was_asked_for_on_average(bundle, share):
    coder = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])
    count, fps = 300, 20
    free = np.mean([len(coder.encode(z, 0, 0)) for z in latents(bundle, count)])
    aimed = control(bundle, bytes_per_second=share * free * fps)
    sizes = []
    for k, symbols in enumerate(latents(bundle, count)):
        aimed.coarsen(symbols)
        sizes.append(len(aimed.encode(symbols, k, int(k * 1e9 / fps))))
    assert np.mean(sizes) == pytest.approx(min(share, 1) * free, rel=0.06)


def test_what_cannot_be_kept_is_said(bundle, tmp_path):
    with pytest.raises(UsageError, match="bytes at least"):
        control(bundle, max_bytes=45)
    plain = make_bundle(tmp_path / "plain")
    with pytest.raises(UsageError, match="one rate"):
        control(plain, max_bytes=10_000)


def test_a_run_logs_what_its_heads_saw(bundle, tmp_path, capsys):
    words = ["run", "synthetic://road?frames=12", "--bundle", str(bundle.path), "--no-overlay", "--no-sheet", "--json"]
    assert main([*words, "--out", str(tmp_path / "free")]) == 0
    free = json.loads(capsys.readouterr().out)
    most = round(free["rate"]["kb_per_frame"] * 1000 * 0.8)
    assert main([*words, "--out", str(tmp_path / "run"), "--max-packet", str(most)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["options"]["rate"]["max_packet"] == most
    assert report["options"]["rate"]["coarseness_mean"] > 0
    sizes = [len(record.packet) for record in read_log(tmp_path / "run/packets.mcap")]
    assert len(sizes) == 12
    assert max(sizes) <= most
    assert main(["replay", str(tmp_path / "run/packets.mcap"), "--bundle", str(bundle.path)]) == 0
    assert main([*words, "--out", str(tmp_path / "no"), "--stream", "--max-packet", str(most)]) != 0
    assert not (tmp_path / "no").exists()


def test_encode_keeps_to_a_rate(bundle, tmp_path, capsys):
    words = ["encode", "synthetic://road?frames=40", "--bundle", str(bundle.path), "--json"]
    assert main([*words, "-o", str(tmp_path / "free.mcap")]) == 0
    free = json.loads(capsys.readouterr().out)["packet_bytes"] / 40
    kbps = 0.8 * free * 25 / 125
    assert main([*words, "-o", str(tmp_path / "aimed.mcap"), "--target-kbps", f"{kbps:.3f}"]) == 0
    aimed = json.loads(capsys.readouterr().out)
    assert (aimed["packet_bytes"] / 40 < 0.9 * free, aimed["notes"]) == (True, [])


def test_a_rate_that_cannot_be_kept_is_said(bundle, tmp_path, capsys):
    said = "0.5 kbit/s cannot be kept: packets are as coarse as they get, and larger"
    few = ["synthetic://road?frames=60", "--bundle", str(bundle.path), "--target-kbps", "0.5"]
    assert main(["encode", *few, "--json", "-o", str(tmp_path / "a.mcap")]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == [said]
    assert main(["run", *few, "--no-overlay", "--no-sheet", "--out", str(tmp_path / "run")]) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("rate", [5e-324, 0.0, -1.0, 0.99, float("inf"), float("nan")])
def test_a_target_that_is_no_rate_is_refused(bundle, rate):
    with pytest.raises(UsageError, match="bytes a second; give 1 or more"):
        control(bundle, bytes_per_second=rate)


@pytest.mark.parametrize("fps", [5e-324, 1e308, float("inf")])
def test_the_least_target_of_a_source_that_says_anything_of_its_rate_works(bundle, fps):
    least = control(bundle, bytes_per_second=1.0, fps=fps)
    for k, symbols in enumerate(latents(bundle, 3)):
        least.coarsen(symbols)
        assert least.encode(symbols, k, k // 2)

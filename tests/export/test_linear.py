"""Linear codecs: a step for each channel, contexts that look back only, and a start in closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from percodec.export.data import load_synthetic
from percodec.export.metrics.similarity import psnr
from percodec.export.models import Steps, block, refined
from percodec.export.models.to_onnx import graphs
from percodec.export.train.config import load_config
from percodec.export.train.from_config import train
from percodec.export.train.klt import contexts_bpp, klt_start, order0_bpp
from percodec.export.train.validate import as_batch
from percodec.sdk.errors import UsageError


@pytest.fixture(scope="module")
def road():
    return load_synthetic(6, 3, 96, 128).images


def started(make, images, bpp=1.0):
    torch.manual_seed(1)
    codec = make(24)
    klt_start(codec, images, bpp)
    return codec.eval()


def test_symbols_stand_for_the_nearest_multiple_of_a_channel_s_step():
    quantizer = Steps(3)
    with torch.no_grad():
        quantizer.log_step.copy_(torch.tensor([0.5, 1.0, 4.0]).log())
        quantizer.fit_range(torch.tensor([-40, -3, 0]), torch.tensor([36, 2, 0]))
    assert quantizer.levels.tolist() == [115, 10, 3]
    z = torch.randn(2, 3, 5, 7) * 3
    symbols = quantizer.symbols(z)
    assert symbols.dtype == torch.uint8
    within = quantizer.eval()(z).q
    assert torch.equal(quantizer.values(symbols), within)
    assert ((within - z).abs() <= quantizer.step.view(-1, 1, 1) / 2 + 1e-5)[:, 0].all()


def test_symbols_saturate_at_their_levels():
    quantizer = Steps(2)
    quantizer.fit_range(torch.tensor([-2, -1]), torch.tensor([2, 1]))
    far = torch.tensor([-1e6, 1e6]).view(1, 1, 1, 2).expand(1, 2, 1, 2)
    assert quantizer.symbols(far)[0, :, 0].tolist() == [[0, 6], [0, 4]]


def test_gradients_reach_latent_and_steps():
    quantizer = Steps(2).train()
    z = torch.randn(1, 2, 4, 4, requires_grad=True)
    out = quantizer(z)
    (out.q.square().sum() + quantizer.bits_per_symbol(out)).backward()
    assert z.grad.abs().sum() > 0
    assert quantizer.log_step.grad.abs().sum() > 0


def test_contexts_know_earlier_symbols_only():
    quantizer = Steps(4)
    for p in quantizer.contexts.parameters():
        torch.nn.init.normal_(p, std=0.1)
    steps = torch.randint(-3, 4, (1, 4, 6, 6)).float()
    changed = steps.clone()
    changed[0, 2, 3, 3] += 2
    differs = quantizer.contexts(steps, steps)[0] != quantizer.contexts(changed, changed)[0]
    assert not differs[:2].any()
    assert differs[3].any()
    differs[2, 3, 3] = False
    assert not differs[2, :4].any(), "neither an earlier row nor the same row of its own channel"
    assert differs[2, 4].any()


def test_bits_are_those_of_a_distribution():
    quantizer = Steps(1)
    for p in quantizer.contexts.parameters():
        torch.nn.init.normal_(p, std=0.5)
    known = torch.randint(-2, 3, (1, 1, 3, 3)).float()
    total = torch.zeros(3, 3)
    for value in range(-200, 201):
        total += torch.exp2(-quantizer.contexts(known, torch.full_like(known, value))[0, 0].detach())
    assert torch.allclose(total, torch.ones(3, 3), atol=1e-3)


@pytest.mark.parametrize("make", [block, refined])
def test_the_closed_form_start_has_the_rate_that_was_asked_for(make, road):
    codec = started(make, road)
    with torch.no_grad():
        steps = [codec.encode(as_batch(image)).evidence for image in road]
        restored = [codec.decode(codec.encode(as_batch(image)).q).clamp(0, 255) for image in road]
    coded = contexts_bpp(codec.quantizer, steps)
    assert coded == pytest.approx(1.0, rel=0.12)
    assert coded < 0.95 * order0_bpp(steps)
    assert np.mean([psnr(r, as_batch(i)) for r, i in zip(restored, road, strict=True)]) > 29
    basis = codec.g_a[0].weight.flatten(1)
    assert torch.allclose(basis @ basis.T, torch.eye(24), atol=1e-4)
    spread = torch.cat([s[0].flatten(1) for s in steps], 1).square().mean(1)
    assert spread[0] > 10 * spread[8] > 10 * spread[23]


def test_graphs_compute_what_torch_does(road):
    codec = started(block, road)
    made = graphs(codec, {}, 96, 128)
    image = road[0][None]
    run = {k: onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]) for k, (_, data) in made.items()}
    symbols = run["encoder"].run(None, {"image": image})[0]
    folded = made["encoder"][0](torch.from_numpy(image)).numpy()
    assert (symbols != folded).mean() < 1e-3
    restored = run["decoder"].run(None, {"symbols": symbols})[0]
    wanted = made["decoder"][0](torch.from_numpy(symbols)).numpy()
    assert np.abs(restored.astype(int) - wanted).max() <= 1
    assert psnr(torch.from_numpy(restored).permute(0, 3, 1, 2).float(), torch.from_numpy(image).permute(0, 3, 1, 2).float()) > 29


def test_training_goes_on_from_the_closed_form(tmp_path: Path):
    words = ["data.train=[['synthetic:4:1',1.0]]", "data.val=synthetic:2:2", "schedule.steps=2", "crops.batch=2", "loss.bpp=0.8"]
    config = load_config("block", words)
    found = train(config, tmp_path / "run", {}, init="klt")
    assert found["bpp_contexts"] == pytest.approx(0.8, rel=0.25)
    assert found["psnr"] > 27


@pytest.mark.parametrize("config", ["edge", "lab-segmentation"])
def test_only_linear_codecs_in_training_start_in_closed_form(tmp_path: Path, config: str):
    words = ["data.train=[['synthetic:2:1',1.0]]", "data.val=synthetic:2:2"]
    with pytest.raises(UsageError, match=r"--codec|--init klt"):
        train(load_config(config, words), tmp_path / "run", {}, init="klt")
    assert not (tmp_path / "run").exists()


def test_the_rate_while_training_is_that_of_hard_symbols_with_the_gradient_of_noisy_ones():
    torch.manual_seed(1)
    steps = Steps(3).train()
    z = (0.2 * torch.randn(2, 3, 8, 8)).requires_grad_()
    rate = steps.bits_per_symbol(steps(z))
    hard = (z.detach() / steps.step.detach().view(-1, 1, 1)).round()
    assert torch.isclose(rate, steps.contexts(hard, hard).mean())
    rate.backward()
    assert z.grad is not None
    assert z.grad.abs().sum() > 0

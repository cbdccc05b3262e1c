"""The networks keep their promises: cost, shapes, exact quantization, gradients that reach what they should."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from percodec.export.models import LatentFPN, Quantizer, edge, rate_bits_per_symbol, theis3  # noqa: E402


def macs_per_pixel(module, example, pixels):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(example)
    return counter.get_total_flops() / 2 / pixels


def test_edge_encoder_costs_at_most_4_kmac_per_pixel():
    assert macs_per_pixel(edge(16).g_a, torch.zeros(1, 3, 96, 128), 96 * 128) <= 4000


def test_theis3_costs_what_the_paper_reconstruction_says():
    cost = macs_per_pixel(theis3(32).g_a, torch.zeros(1, 3, 96, 128), 96 * 128)
    assert cost == pytest.approx(70_900, rel=0.01)


@pytest.mark.parametrize("make", [edge, theis3])
def test_autoencoder_shapes(make):
    codec = make(8)
    quantized, restored = codec(torch.rand(2, 3, 48, 64) * 255)
    assert quantized.q.shape == (2, 8, 6, 8)
    assert quantized.evidence.shape == (2, 8, 6, 8, 6)
    assert restored.shape == (2, 3, 48, 64)


def test_head_gives_full_resolution_logits_at_sizes_32_does_not_divide():
    logits = LatentFPN(8, 11).eval()(torch.rand(1, 8, 45, 60))
    assert logits.shape == (1, 11, 360, 480)


def test_symbols_are_the_nearest_centers():
    quantizer = Quantizer(6)
    with torch.no_grad():
        quantizer.gap_logits.copy_(torch.randn(5))
    z = torch.randn(2, 3, 5, 7) * 3
    nearest = (z[..., None] - quantizer.centers).abs().argmin(-1)
    assert torch.equal(quantizer.symbols(z).long(), nearest)
    assert torch.equal(quantizer(z).q, quantizer.centers[nearest])


def test_centers_stay_sorted_whatever_the_optimiser_does():
    quantizer = Quantizer(6)
    with torch.no_grad():
        quantizer.gap_logits.copy_(torch.tensor([-50.0, 3.0, -9.0, 0.0, -1.0]))
    assert (quantizer.centers.diff() > 0).all()


def test_gradients_reach_latent_and_centers_and_soft_values_do_not_leak_forward():
    quantizer = Quantizer(6)
    z = torch.randn(1, 2, 4, 4, requires_grad=True)
    out = quantizer(z)
    assert set(out.evidence.detach().round(decimals=5).unique().tolist()) <= {0.0, 1.0}
    (out.q.square().sum() + rate_bits_per_symbol(out.evidence)).backward()
    assert z.grad.abs().sum() > 0
    assert quantizer.first.grad is not None
    assert quantizer.gap_logits.grad.abs().sum() > 0


def test_rate_is_the_per_channel_entropy():
    assignment = torch.zeros(1, 2, 1, 4, 6)
    assignment[0, 0, 0, :, 3] = 1  # a channel that always says 3: no bits
    for k in range(4):
        assignment[0, 1, 0, k, k] = 1  # four symbols equally often: two bits
    assert float(rate_bits_per_symbol(assignment)) == pytest.approx(1.0, abs=1e-3)


def test_descending_the_rate_lowers_it():
    quantizer = Quantizer(6)
    z = torch.nn.Parameter(torch.randn(4, 2, 16, 16) * 1.5)
    first = rate_bits_per_symbol(quantizer(z).evidence).item()
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        rate_bits_per_symbol(quantizer(z).evidence).backward()
        optimizer.step()
    assert rate_bits_per_symbol(quantizer(z).evidence).item() < first - 0.3


def test_levels_out_of_range_are_refused():
    with pytest.raises(ValueError, match="levels"):
        Quantizer(1)


def test_a_quantizer_follows_anothers_centers():
    centers = torch.tensor([-3.6, -2.1, -0.2, 1.8, 3.7, 5.6])
    free, even = Quantizer(6), Quantizer(6, uniform=True)
    free.follow(centers)
    assert torch.allclose(free.centers, centers, atol=1e-5)
    even.follow(centers)
    found = even.centers.detach()
    assert torch.allclose(found.diff(), found.diff()[:1].expand(5), atol=1e-5)
    best = np.polyval(np.polyfit(np.arange(6), centers.numpy(), 1), np.arange(6))
    assert np.allclose(found.numpy(), best, atol=1e-5)


@pytest.mark.parametrize("uniform", [False, True])
def test_centers_survive_being_written_down(uniform):
    torch.manual_seed(0)
    same = 0
    for _ in range(20):
        given, again = Quantizer(6, uniform=uniform), Quantizer(6, uniform=uniform)
        with torch.no_grad():
            given.first.add_(torch.randn(()))
            given.gap_logits.add_(torch.randn_like(given.gap_logits))
        again.follow(given.centers.detach())
        same += torch.equal(again.centers, given.centers)
    assert same >= 18

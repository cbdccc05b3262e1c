"""The paper's networks: operations, parameters, shapes; what does not fit together is refused with the reason."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")

from percodec.export.evaluate.compute import count_macs, count_parameters, networks  # noqa: E402
from percodec.export.models import AUTOENCODERS, Classifier, DeepLab, ResNet, build_head  # noqa: E402
from percodec.export.train.config import DEFAULTS  # noqa: E402
from percodec.sdk.errors import UsageError  # noqa: E402

# Torfason et al. 2018, table of networks: GFLOP there are multiply-accumulates.
PAPER_GMAC = {"resnet50": 3.86, "resnet71": 5.38, "cresnet39": 2.95, "cresnet51": 3.83, "cresnet72": 5.36}
# Every network of the laboratory at full width, C = 32, 1000 classes or 21: a change here is a change of the architecture.
PARAMETERS = {
    "theis3 encoder": 1_198_720,
    "theis3 decoder": 1_198_662,
    "cvpr18 encoder": 5_039_232,
    "cvpr18 decoder": 4_973_638,
    "edge encoder": 198_080,
    "edge decoder": 1_466_928,
    "fast encoder": 23_200,
    "fast decoder": 1_198_662,
    "balanced encoder": 65_008,
    "balanced decoder": 1_198_662,
    "resnet50": 25_557_032,
    "resnet71": 33_377_320,
    "cresnet27": 22_393_832,
    "cresnet39": 25_188_328,
    "cresnet51": 29_657_064,
    "cresnet72": 37_477_352,
    "resnet50-d": 25_056_404,
    "resnet71-d": 32_876_692,
    "cresnet27-d": 21_893_204,
    "cresnet39-d": 24_687_700,
    "cresnet51-d": 29_156_436,
    "cresnet72-d": 36_976_724,
    "fpn": 2_611_632,
    "block encoder": 6_176,
    "block decoder": 2_084_864,
    "refined encoder": 20_064,
    "refined decoder": 2_084_864,
}


@pytest.fixture(scope="module")
def table():
    return {e.name: e for e in networks()}


@pytest.mark.parametrize("name", PAPER_GMAC)
def test_operations_are_the_papers(table, name):
    with torch.device("meta"):
        macs = count_macs(table[name].make(), torch.empty_like(table[name].example, device="meta"))
    assert macs / 1e9 == pytest.approx(PAPER_GMAC[name], rel=0.01)


def test_parameters_are_frozen(table):
    assert {name: count_parameters(e.make()) for name, e in table.items()} == PARAMETERS


@pytest.mark.parametrize(
    ("name", "kmac"),
    [
        *(("theis3", 70.9), ("cvpr18", 310.6), ("edge", 3.65), ("balanced", 1.064), ("fast", 0.36)),
        *(("block", 0.096), ("refined", 0.312)),
    ],
)
def test_encoders_cost_what_they_say_per_pixel(table, name, kmac):
    entry = table[f"{name} encoder"]
    assert count_macs(entry.make(), entry.example) / 224**2 / 1e3 == pytest.approx(kmac, rel=0.01)


@pytest.mark.parametrize("name", AUTOENCODERS)
@pytest.mark.parametrize("channels", [8, 16, 32])
def test_224_becomes_28_and_comes_back(name, channels):
    codec = AUTOENCODERS[name](channels, 6, 1.0).eval()
    with torch.no_grad():
        quantized, restored = codec(torch.full((1, 3, 224, 224), 100.0))
    assert quantized.q.shape == (1, channels, 28, 28)
    assert restored.shape == (1, 3, 224, 224)


@pytest.mark.parametrize("name", ["resnet50", "resnet71", "cresnet39", "cresnet51", "cresnet72"])
def test_dilated_networks_keep_an_eighth_and_classifiers_go_on(name):
    latent = name.startswith("c")
    x = torch.zeros(1, 6, 12, 16) if latent else torch.zeros(1, 3, 96, 128)
    backbone = ResNet(name, x.shape[1], 0.125, dilated=True).eval()
    assert [f.shape[-2:] for f in backbone.features(x)] == [(12, 16)] * 3
    assert DeepLab(backbone, 11).eval()(x).shape == (1, 11, 96, 128)
    plain = ResNet(name, x.shape[1], 0.125).eval()
    assert [f.shape[-1] for f in plain.features(x)] == [16, 8, 4]
    assert Classifier(plain, 5).eval()(x).shape == (1, 5)


def test_dilation_is_two_and_four_and_aspp_the_papers():
    network = DeepLab(ResNet("cresnet39", 8, 0.125, dilated=True), 3)
    dilations = {m.dilation[0] for m in network.backbone.conv4.modules() if isinstance(m, torch.nn.Conv2d)}
    assert dilations == {1, 2}
    assert {m.dilation[0] for m in network.backbone.conv5.modules() if isinstance(m, torch.nn.Conv2d)} == {1, 4}
    assert [b.dilation[0] for b in network.aspp] == [6, 12, 18, 24]
    network.eval()
    x = torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        last = network.backbone(x)
        summed = sum(branch(last) for branch in network.aspp)
        whole = torch.nn.functional.interpolate(summed, scale_factor=8, mode="bilinear", align_corners=False)
        assert torch.allclose(network(x), whole, atol=1e-5)


def test_a_width_factor_scales_every_layer():
    narrow, wide = ResNet("resnet50", 3, 0.25), ResNet("resnet50", 3, 0.5)
    assert (narrow.channels_out, wide.channels_out) == (512, 1024)
    assert 3.5 < count_parameters(wide) / count_parameters(narrow) < 4.5
    assert AUTOENCODERS["theis3"](8, 6, 0.5).g_a[1][0].out_channels == 64
    with pytest.raises(UsageError, match=r"codec\.width"):
        AUTOENCODERS["edge"](8, 6, 0.5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "resnet99"}, "head.name must be one of"),
        ({"input": "rgb"}, "head.input must be one of"),
        ({"name": "resnet50-d"}, "reads pictures"),
        ({"name": "cresnet51-d", "input": "decoded"}, "reads latents"),
        ({"name": "cresnet51-d", "width": 0.0}, "head.width"),
    ],
)
def test_heads_that_do_not_fit_their_input_are_refused(change, reason):
    with pytest.raises(UsageError, match=reason):
        build_head({**DEFAULTS["head"], **change}, 8)

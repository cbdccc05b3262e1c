"""A head that keeps a share of what it started from."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")

from percodec.export.models.heads import HEADS, build_head  # noqa: E402
from percodec.export.train.checkpoint import load_checkpoint  # noqa: E402
from percodec.export.train.config import DEFAULTS, load_config  # noqa: E402
from percodec.export.train.from_config import train, trained_model  # noqa: E402
from percodec.export.train.kept import plain  # noqa: E402
from percodec.sdk.errors import UsageError  # noqa: E402

TINY = ["codec.name=edge", "codec.channels=4", "loss.bpp=0.1", "crops.size=64", "crops.batch=2", "schedule.steps=2"]
HEAD = [*TINY, "head.name=fpn", "head.widths=[8, 8, 8]", "head.pyramid=8", "crops.views=2", "schedule.checkpoint_every=1"]


def head_of(checkpoint):
    head = trained_model(load_checkpoint(checkpoint)).head
    assert head is not None
    return head


@pytest.mark.parametrize("name", HEADS)
def test_plain_weights_say_the_same(name: str) -> None:
    latent = name == "fpn" or not name.startswith("resnet")
    head = build_head({**DEFAULTS["head"], "name": name, "input": "latent" if latent else "original", "width": 0.125}, 4)
    x = torch.randn(2, 4 if latent else 3, 16, 16) if latent else torch.randn(2, 3, 64, 64)
    head.train()
    for _ in range(2):
        head(x)  # moves the statistics of batch norm
    with torch.no_grad():
        for weight in head.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    head.eval()
    with torch.no_grad():
        wanted = head(x)
        weights = plain(head)
        again = head(x)
        head.load_state_dict(weights)
        found = head(x)
    assert torch.equal(wanted, again)  # it is left as it was
    assert torch.allclose(found, wanted, atol=1e-3 * float(wanted.abs().max()))
    norms = [k.removesuffix("running_mean") for k in weights if k.endswith("running_mean")]
    assert norms
    assert all(not weights[f"{k}running_mean"].any() and len(weights[f"{k}weight"].unique()) == 1 for k in norms)


def test_a_run_ends_between_what_it_began_as_and_what_it_learned(camvid, tmp_path) -> None:
    places = {"camvid": str(camvid)}
    train(load_config("edge", [*TINY, 'data.train=[["camvid:{camvid}:train", 1]]']), tmp_path / "codec", places)
    codec = tmp_path / "codec" / "best.pt"
    train(load_config("lab-segmentation", HEAD), tmp_path / "first", places, codec)
    start = tmp_path / "first" / "best.pt"
    more = [*HEAD, "schedule.lr=0.01", "schedule.ema=0", "head.offsets=true"]
    train(load_config("lab-segmentation", more), tmp_path / "alone", places, codec, head_from=start)
    kept = load_config("lab-segmentation", [*more, "head.kept=0.25"])
    best = train(kept, tmp_path / "kept", places, codec, head_from=start)
    assert best["kept"] == 0.25
    assert len(best["class_offsets"]) == 11
    first, alone, found = (plain(head_of(tmp_path / run / "best.pt")) for run in ("first", "alone", "kept"))
    for name in ("stem.0.weight", "stage16.0.body.1.0.weight", "smooth8.1.bias"):
        assert not torch.allclose(first[name], alone[name])
        assert torch.allclose(found[name], 0.25 * first[name] + 0.75 * alone[name], atol=1e-6)
    state = load_checkpoint(tmp_path / "kept" / "best.pt")
    assert state["val"] == best
    assert train(kept, tmp_path / "kept", places, codec, head_from=start) == best  # once
    again = load_checkpoint(tmp_path / "kept" / "best.pt")["model"]
    assert all(torch.equal(v, again[k]) for k, v in state["model"].items())


def test_it_needs_something_to_keep(camvid, tmp_path) -> None:
    places = {"camvid": str(camvid)}
    train(load_config("edge", [*TINY, 'data.train=[["camvid:{camvid}:train", 1]]']), tmp_path / "codec", places)
    with pytest.raises(UsageError, match="--head"):
        train(load_config("lab-segmentation", [*HEAD, "head.kept=0.25"]), tmp_path / "run", places, tmp_path / "codec" / "best.pt")
    assert not (tmp_path / "run").exists()

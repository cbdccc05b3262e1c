"""Networks go on from a bundle as what the bundle computes."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")

from torch import nn  # noqa: E402

from percodec.export.data.crops import Batch  # noqa: E402
from percodec.export.models.segmentation import LatentFPN  # noqa: E402
from percodec.export.train.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from percodec.export.train.config import load_config  # noqa: E402
from percodec.export.train.from_config import train, trained_model  # noqa: E402
from percodec.export.train.kept import plain  # noqa: E402
from percodec.export.train.norms import idle, settle  # noqa: E402


class Shown(nn.Module):
    """Stands for an objective: a head on what a batch holds."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.head(batch.inputs)


def learned() -> LatentFPN:
    """A head whose batch norms have seen something."""
    torch.manual_seed(3)
    head = LatentFPN(4, 3, (8, 8, 8), 8, dropout=0)
    for _ in range(30):
        head(2 + 3 * torch.randn(4, 4, 16, 16))
    return head


def batch(step: int) -> Batch:
    draw = torch.Generator().manual_seed(step)
    return Batch(2 + 3 * torch.randn(8, 4, 16, 16, generator=draw), torch.zeros(8, 128, 128, dtype=torch.int64))


def test_new_and_trained_norms_are_left_alone() -> None:
    assert not idle(LatentFPN(4, 3, (8, 8, 8), 8))
    assert not idle(learned())


def test_what_a_head_says_stays_and_training_starts_there() -> None:
    head = learned()
    head.load_state_dict(plain(head))
    norms = idle(head)
    assert len(norms) == sum(isinstance(m, nn.BatchNorm2d) for m in head.modules())
    before = copy.deepcopy(head)
    settle(norms, Shown(head), batch)
    assert not idle(head)
    x = batch(100).inputs
    with torch.no_grad():
        wanted = before.eval()(x)
        assert torch.allclose(head.eval()(x), wanted, atol=1e-4)
        far, near = (float((one.train()(x) - wanted).abs().mean() / wanted.abs().mean()) for one in (before, head))
    assert near < 0.15
    assert far > 3 * near


def test_a_run_goes_on_from_there(camvid, tmp_path) -> None:
    places = {"camvid": str(camvid)}
    tiny = ["codec.name=edge", "codec.channels=4", "loss.bpp=0.1", "crops.size=64", "crops.batch=2", "schedule.steps=3"]
    train(load_config("edge", [*tiny, 'data.train=[["camvid:{camvid}:train", 1]]']), tmp_path / "codec", places)
    codec = tmp_path / "codec" / "best.pt"
    small = [*tiny, "head.name=fpn", "head.widths=[8, 8, 8]", "head.pyramid=8", "crops.views=2", "schedule.checkpoint_every=1"]
    train(load_config("lab-segmentation", small), tmp_path / "first", places, codec)
    state = load_checkpoint(tmp_path / "first" / "best.pt")
    head = trained_model(state).head
    assert head is not None
    weights = {f"head.{k}": v for k, v in plain(head).items()}
    save_checkpoint(tmp_path / "plain.pt", {**state, "model": {**state["model"], **weights}})
    still = load_config("lab-segmentation", [*small, "schedule.lr=1e-12", "schedule.ema=0", "schedule.steps=1"])
    train(still, tmp_path / "on", places, codec, head_from=tmp_path / "plain.pt")
    after = trained_model(load_checkpoint(tmp_path / "on" / "last.pt")).head
    assert after is not None
    norms = [m for m in after.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all((norm.weight - 1).abs().max() > 0.01 for norm in norms)  # a scale of its channel's own
    found = plain(after)
    for name in ("stem.0.weight", "stage16.0.body.1.0.weight"):  # one batch moves the statistics by a tenth of what it differs
        assert torch.allclose(found[name], weights[f"head.{name}"], rtol=0.25, atol=1e-3)
    taken = train(still, tmp_path / "on", places, codec, head_from=tmp_path / "plain.pt")
    assert taken == load_checkpoint(tmp_path / "on" / "best.pt")["val"]

"""Writes the gradients of one step of each configuration to a file. Run by test_distributed.py under torchrun, and alone."""

import sys

import torch

from percodec.export.data.crops import Crops
from percodec.export.data.sets import load
from percodec.export.train import distributed
from percodec.export.train.config import load_config
from percodec.export.train.from_config import build_model
from percodec.export.train.tasks import Objective, class_weights


def gradients_of(camvid: str, name: str, overrides: list[str], device: torch.device) -> dict[str, dict[str, torch.Tensor]]:
    config = load_config(name, overrides)
    data = load(f"camvid:{camvid}:train")
    crops = config["crops"]
    share = (distributed.rank(), distributed.world())
    batch = Crops([data], [1.0], crops["size"], crops["batch"], 1, (0.75, 1.5), 0.2, share=share).batch(0)
    model = build_model(config).train()
    objective = distributed.wrap(Objective(model, config, class_weights([data], 11), prepared=False), device)
    loss, _ = objective(batch)
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {"gradients": gradients, "buffers": {n: b for n, b in model.named_buffers() if "running" in n}}


def main() -> None:
    camvid, names, out, *overrides = sys.argv[1:]
    torch.set_num_threads(1)
    device = distributed.start()
    found = {name: gradients_of(camvid, name, overrides, device) for name in names.split(",")}
    if distributed.rank() == 0:
        torch.save(found, out)
    distributed.finish()


if __name__ == "__main__":
    main()

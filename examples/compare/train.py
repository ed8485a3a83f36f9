"""Train the network of subject.py with plain PyTorch; nothing of mnemoscope is used here.

python train.py --images work/images --leave-out work/holdout.csv --out work/before.pt
python train.py --images work/images --leave-out work/holdout.csv work/forget.csv --seed 1 --out work/retrained.pt
"""

import argparse
import csv
from pathlib import Path

import torch
from PIL import Image
from subject import model, transform
from torch.nn.functional import cross_entropy


def read(images: Path, leave_out: list[Path]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and labels of every image that no list leaves out."""
    names = sorted(folder.name for folder in images.iterdir())
    without = {row[0] for path in leave_out for row in csv.reader(path.open(newline=""))}
    files = [p for p in sorted(images.rglob("*.png")) if p.relative_to(images).as_posix() not in without]
    inputs = torch.stack([transform(Image.open(path)) for path in files])
    return inputs, torch.tensor([names.index(path.parent.name) for path in files])


def main() -> None:
    """Train and write a state_dict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--leave-out", type=Path, nargs="+", default=[])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    inputs, labels = read(args.images, args.leave_out)
    network = model()
    optimiser = torch.optim.SGD(network.parameters(), lr=args.lr, momentum=0.9, nesterov=True)
    steps = args.epochs * -(-len(labels) // args.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(args.epochs):
        for batch in torch.randperm(len(labels)).split(args.batch):
            optimiser.zero_grad()
            cross_entropy(network(inputs[batch]), labels[batch]).backward()
            optimiser.step()
            schedule.step()
    torch.save({"model_state_dict": network.state_dict(), "epochs": args.epochs}, args.out)


if __name__ == "__main__":
    main()

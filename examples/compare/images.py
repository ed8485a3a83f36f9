"""Write real images as an image folder, one folder a class, and draw which are to be forgotten and which held out.

python images.py --source digits --label-noise 0.3 --forget 450 --holdout 450 --out work
python images.py --source cifar10 --data-root DIR --n 2400 --forget 600 --holdout 600 --out work

A network this size learns clean digits without memorising them. Wrong labels, as real collections have them, can only
be memorised, so with `--label-noise` there is something to forget.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image


def load(source: str, data_root: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, h, w) or (n, h, w, 3) uint8 images and (n,) labels."""
    if source == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target
    import torchvision.datasets

    kind = {"cifar10": torchvision.datasets.CIFAR10, "mnist": torchvision.datasets.MNIST}[source]
    data = kind(data_root, train=True)
    return np.asarray(data.data), np.asarray(data.targets)


def main() -> None:
    """Write ``images/<class>/<number>.png``, ``forget.csv`` and ``holdout.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=("digits", "mnist", "cifar10"), default="digits")
    parser.add_argument("--data-root")
    parser.add_argument("--n", type=int, default=1797)
    parser.add_argument("--forget", type=int, default=450)
    parser.add_argument("--holdout", type=int, default=450)
    parser.add_argument("--label-noise", type=float, default=0.0, help="share of images put into a random class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    images, labels = load(args.source, args.data_root)
    rng = np.random.default_rng(args.seed)
    chosen = rng.permutation(labels.size)[: args.n]
    labels = np.where(rng.random(labels.size) < args.label_noise, rng.integers(0, 10, labels.size), labels)
    keys = []
    for number in chosen:
        key = f"{labels[number]}/{number:05d}.png"
        path = args.out / "images" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number]).convert("RGB").save(path)
        keys.append(key)
    parts = {"forget": keys[: args.forget], "holdout": keys[args.forget : args.forget + args.holdout]}
    for name, part in parts.items():
        with (args.out / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["key"], *([key] for key in part)])


if __name__ == "__main__":
    main()

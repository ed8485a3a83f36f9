"""Claim: the diagonal Fisher information of an MLP costs at most a tenth of a Python loop over records.

Three sums over the same records, in one run on one thread: the Fisher information with labels drawn from the model
(every class of every record), the empirical one, and the recursion of influence unlearning over single gradients.
Each by a plain loop of backward passes, by torch.func.vmap, and, the Fisher information, layer by layer as the methods
take it where they can. With each the largest difference to the loop, relative to the largest value.

The claim is made for the Fisher information on MLPs. On one core a loop spends its time between operations for small
models and in them for large ones; a vmap that holds every gradient is bound by memory there, and its ratio is given as
it is.

    python benchmarks/fisher_influence.py [--out benchmarks/results/fisher_influence.json]
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from mnemoscope.audit.models.architectures import build_model
from mnemoscope.audit.models.curvature import (
    expected_ways,
    gradient_dots,
    label_ways,
    squared_gradients,
    sum_gradient,
)

RECORDS, REPEATS = 128, 3
MODELS = {
    "mlp:256, 8x8x1": ("mlp:256", (1, 8, 8), 10, True),
    "small_cnn, 8x8x1": ("small_cnn", (1, 8, 8), 10, False),
    "mlp:256, 446 columns": ("mlp:256", (446,), 30, True),
    "small_cnn, 32x32x3": ("small_cnn", (3, 32, 32), 10, False),
}


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, labels, reduction="sum")


def loop_fisher(model: nn.Module, x: Tensor, y: Tensor, *, expected: bool) -> Tensor:
    """One backward pass for each record, or for each class of each record."""
    weights = list(model.parameters())
    total = [torch.zeros_like(w) for w in weights]
    for record, label in zip(x, y, strict=True):
        log_p = torch.log_softmax(model(record[None])[0], dim=0)
        for c in range(len(log_p)) if expected else [int(label)]:
            share = float(log_p[c].detach().exp()) if expected else 1.0
            grads = torch.autograd.grad(log_p[c], weights, retain_graph=True)
            for kept, g in zip(total, grads, strict=True):
                kept += share * g.square()
    return torch.cat([t.flatten() for t in total])


def fast_fisher(model: nn.Module, x: Tensor, y: Tensor, *, expected: bool, route: str) -> Tensor:
    with torch.no_grad():
        logits = model(x)
    ways = expected_ways(logits) if expected else label_ways(logits, y)
    sums = squared_gradients(model, x, ways, route=route)  # type: ignore[arg-type]
    return torch.cat([part.flatten() for part in sums.values()])


def loop_influence(model: nn.Module, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
    """The recursion of two vectors, record by record."""
    weights, m = list(model.parameters()), len(y)
    o, k = torch.zeros_like(v), v.clone()
    for place, (record, label) in enumerate(zip(x, y, strict=True)):
        grads = torch.autograd.grad(loss(model(record[None]), label[None]), weights)
        g = torch.cat([part.flatten() for part in grads])
        if place == 0:
            o = g
            continue
        t = o @ g
        k = k - (k @ g) / (m + t) * o
        o = o - t / (m + t) * o
    return k


def fast_influence(model: nn.Module, x: Tensor, y: Tensor, v: Tensor) -> Tensor:
    """The same recursion in two numbers, as ``unlearning/influence.py`` runs it."""
    first = sum_gradient(model, loss, iter([(x[:1], y[:1])]))
    sizes = [w.numel() for w in model.parameters()]
    named = {n: part.reshape(w.shape) for (n, w), part in zip(model.named_parameters(), v.split(sizes), strict=True)}
    along = gradient_dots(model, loss, x, y, (first, named)).T.tolist()
    m, s, c = len(y), 1.0, 0.0
    for a, b in zip(along[0][1:], along[1][1:], strict=True):
        t = s * a
        c += (b - c * a) / (m + t) * s
        s -= t / (m + t) * s
    return v - c * torch.cat([part.flatten() for part in first.values()])


def seconds(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Least processor time of several runs, and the result."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        result = run()
        times.append(time.process_time() - start)
    return min(times), result


def difference(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fisher_influence.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for name, (architecture, shape, classes, _) in MODELS.items():
        model = build_model(architecture, input_shape=shape, n_classes=classes, seed=0).eval()
        draw = torch.Generator().manual_seed(0)
        x, y = torch.randn(RECORDS, *shape, generator=draw), torch.randint(0, classes, (RECORDS,), generator=draw)
        v = torch.randn(sum(w.numel() for w in model.parameters()), generator=draw)
        rows[name] = {}
        for task, expected in (("fisher", True), ("fisher_empirical", False)):
            slow, right = seconds(partial(loop_fisher, model, x, y, expected=expected))
            row = {"loop_ms": 1e3 * slow / RECORDS}
            for route in ("layers", "vmap"):
                fast, got = seconds(partial(fast_fisher, model, x, y, expected=expected, route=route))
                row |= {f"{route}_ms": 1e3 * fast / RECORDS, f"{route}_speedup": slow / fast}
                row[f"{route}_difference"] = difference(got, right)
            rows[name][task] = row
        slow, right = seconds(partial(loop_influence, model, x, y, v))
        fast, got = seconds(partial(fast_influence, model, x, y, v))
        rows[name]["influence"] = {
            "loop_ms": 1e3 * slow / RECORDS,
            "vmap_ms": 1e3 * fast / RECORDS,
            "vmap_speedup": slow / fast,
            "vmap_difference": difference(got - v, right - v),
        }
        rows[name] = {task: {k: float(f"{n:.3g}") for k, n in row.items()} for task, row in rows[name].items()}
        print(name, json.dumps(rows[name], indent=1), flush=True)
    claimed = [
        rows[name][task] for name, entry in MODELS.items() if entry[3] for task in ("fisher", "fisher_empirical")
    ]
    result = {
        "claim": "Fisher information of MLPs: at least 10 times a loop over records, equal to 1e-4 of the largest",
        "machine": f"{platform.machine()}, torch {torch.__version__}, one thread, processor time, ms a record",
        "load": f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        "records": RECORDS,
        "models": rows,
        "holds": all(row["layers_speedup"] >= 10 and row["layers_difference"] <= 1e-4 for row in claimed),
    }
    print("holds:", result["holds"])
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""DP-SGD (Abadi et al. 2016, arXiv 1607.00133) through Opacus: Poisson batches, clipped gradients, noise, epsilon.

The generators are seeded, as everything in an audit: whoever knows the seed can subtract the noise. That is right for
measuring what DP-SGD would help, and wrong for a model that is to be published.
"""

import math
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mnemoscope.audit.errors import InvalidInput, MissingNeed, UnsupportedModel
from mnemoscope.audit.models.recipes import Recipe
from mnemoscope.audit.models.training import Batch, BatchStream
from mnemoscope.audit.rng import child_seed

if TYPE_CHECKING:
    from mnemoscope.audit.models.data import DeviceData

__all__ = ["PoissonStream", "PrivateGradient", "check_private_layers", "dp_epsilon"]


def _opacus() -> Any:
    try:
        import opacus
    except ImportError as error:
        raise MissingNeed(
            "the recipe trains with DP-SGD (dp_clip > 0), which needs Opacus. Install it: pip install 'mnemoscope[dp]'"
        ) from error
    return opacus


def dp_epsilon(recipe: Recipe, n_records: int, delta: float) -> float:
    """Return the epsilon that DP-SGD guarantees for adding or removing one record, by Opacus' RDP accountant.

    It holds for one run of ``train_model``; what an unlearning method does to the model afterwards comes on top. A run
    makes S = ceil(n / batch_size) steps an epoch, into each of which every record comes
    with probability 1 / S.

    Args:
        recipe: with ``dp_clip`` set.
        n_records: n, number of training records; taken as public.
        delta: of (epsilon, delta), in (0, 1).

    Returns:
        Epsilon >= 0; infinite without noise (clipping alone guarantees nothing).

    Raises:
        InvalidInput: a recipe without DP-SGD, an empty training set, or delta outside (0, 1).
        MissingNeed: Opacus is not installed.
    """
    if not recipe.private:
        raise InvalidInput("recipe: dp_clip=0 trains without DP-SGD, so there is no epsilon; set dp_clip and dp_noise")
    if n_records < 1 or not 0 < delta < 1:
        raise InvalidInput(f"n_records={n_records!r}, delta={delta!r}: n must be 1 or more and delta lie in (0, 1)")
    _opacus()
    from opacus.accountants import RDPAccountant

    if recipe.dp_noise == 0:
        return math.inf if recipe.epochs else 0.0
    steps = math.ceil(n_records / recipe.batch_size)
    accountant = RDPAccountant()
    accountant.history = [(recipe.dp_noise, 1.0 / steps, recipe.epochs * steps)]
    with warnings.catch_warnings():
        # At the edge of its orders the accountant's bound still holds; it is only looser than it could be.
        warnings.filterwarnings("ignore", message="Optimal order is the (largest|smallest) alpha")
        return max(0.0, float(accountant.get_epsilon(delta=delta))) if recipe.epochs else 0.0


class PoissonStream(BatchStream):
    """Batches into which every record comes independently with probability 1 / steps, as the accounting assumes.

    A batch may be empty, and a record may stay out of a whole run: what the optimiser saw is what is marked.
    """

    def epoch(self) -> list[Batch]:
        """Return the batches of the next epoch."""
        device = self._positions.device
        batches = []
        for _ in range(self.steps):
            drawn = torch.rand(self.n, generator=self._order) * self.steps < 1
            positions = self._positions[drawn.nonzero().flatten().to(device)]
            count = positions.numel()
            flip, shift = None, None
            if self._kind != "none":
                flip = (torch.rand(count, generator=self._augment) < 0.5).to(device)
            if self._kind == "flip-crop":
                shift = torch.randint(-self._reach, self._reach + 1, (count, 2), generator=self._augment).to(device)
            batches.append(Batch(positions, flip, shift))
        return batches


class PrivateGradient:
    """Puts the clipped, noised gradient of a batch into ``.grad``; a context that leaves the module as it found it."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: Recipe,
        data: "DeviceData",
        stream: BatchStream,
        seed: int,
    ) -> None:
        """Attach to a module in train mode.

        Args:
            module: on the data's device.
            optimizer: over the module's trainable parameters; stepped by the caller.
            recipe: noise multiplier, clipping norm, label smoothing.
            data: gives the device.
            stream: gives the expected batch size, by which the sum is divided whatever the batch drawn.
            seed: of the run.

        Raises:
            MissingNeed: Opacus is not installed.
            UnsupportedModel: layers whose output for a record depends on other records, or that Opacus cannot handle.
        """
        _opacus()
        from opacus.grad_sample import GradSampleModule
        from opacus.optimizers import DPOptimizer

        check_private_layers(module)
        self._module = module
        self._label_smoothing = recipe.label_smoothing
        self._weights = [p for group in optimizer.param_groups for p in group["params"]]
        # Opacus' own rule for convolutions reads memory as if it were contiguous: on channels-last images its gradients
        # are wrong, without a word. torch.func gives the right ones in any layout, at 1.6 times the time.
        self._wrapped: Any = GradSampleModule(module, loss_reduction="sum", force_functorch=True)
        self._optimizer: Any = DPOptimizer(
            optimizer,
            noise_multiplier=recipe.dp_noise,
            max_grad_norm=recipe.dp_clip,
            expected_batch_size=stream.n / stream.steps,  # type: ignore[arg-type,unused-ignore]
            loss_reduction="mean",
            generator=torch.Generator(data.device).manual_seed(child_seed(seed, "dp-noise")),
        )

    def __enter__(self) -> "PrivateGradient":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._wrapped.cleanup()
        for part in self._module.modules():
            part.__dict__.pop("activations", None)

    def backward(self, inputs: Tensor, labels: Tensor, *, loss_sign: float = 1.0) -> Tensor:
        """Set ``.grad`` to (sum of clipped gradients + noise) / expected batch size.

        Args:
            inputs: (b, ...) float32, b may be 0: then the gradient is noise alone, as the accounting assumes.
            labels: (b,) int64.
            loss_sign: factor on the loss.

        Returns:
            Mean loss of the batch, (), 0 for an empty one; without ``loss_sign``.
        """
        self._optimizer.zero_grad(set_to_none=True)
        if len(labels) == 0:
            for weight in self._weights:
                weight.grad_sample = weight.new_zeros((0, *weight.shape))
            self._optimizer.pre_step()
            return torch.zeros((), device=labels.device)
        with warnings.catch_warnings():
            # Inputs are data and need no gradient, as Opacus' hooks expect.
            warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients")
            loss = nn.functional.cross_entropy(
                self._wrapped(inputs).float(), labels, label_smoothing=self._label_smoothing, reduction="sum"
            )
            (loss * loss_sign).backward()  # type: ignore[no-untyped-call]
        self._optimizer.pre_step()
        return loss.detach() / len(labels)


def check_private_layers(module: nn.Module) -> None:
    """Raise ``UnsupportedModel`` where the gradient of each record cannot be had from a module; see there."""
    from opacus.validators import ModuleValidator

    norms = [name for name, part in module.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    if norms:
        raise UnsupportedModel(
            f"DP-SGD clips the gradient of each record, but batch normalisation ({norms[0]}"
            f"{f' and {len(norms) - 1} more' if len(norms) > 1 else ''}) mixes the records of a batch. "
            "Use 'mlp:...', 'small_cnn', or a model of your own with GroupNorm"
        )
    errors = ModuleValidator.validate(module, strict=False)
    if errors:
        raise UnsupportedModel(
            f"Opacus cannot clip the gradient of each record for this model: {'; '.join(str(e) for e in errors[:3])}. "
            "Exchange these layers, or train without dp_clip"
        )

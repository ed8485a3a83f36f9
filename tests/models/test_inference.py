import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from mnemoscope.audit.errors import AuditError, InvalidInput, UnsupportedModel
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import Runtime

RUNTIME = Runtime(device="cpu", inference_batch=16)
IDS = np.array([150, 3, 77, *range(100, 140)])


class Echo(nn.Module):
    """Answers with its inputs, and keeps them."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        self.asked = x.detach().clone()
        return x.flatten(1) * self.scale


def normal():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Dropout(0.9), nn.Linear(192, 4))


def test_logits_are_those_of_eval_mode_in_the_order_of_the_ids(colour):
    data, model = DeviceData(colour), normal()
    model[1].eval()
    modes = [part.training for part in model.modules()]
    got = infer_logits(model, data, IDS, runtime=RUNTIME)
    assert [part.training for part in model.modules()] == modes
    assert got.shape == (IDS.size, 1, 4)
    assert got.dtype == np.float32
    with torch.no_grad():
        expected = model.eval()(data.inputs(torch.from_numpy(IDS))).numpy()
    np.testing.assert_allclose(got[:, 0], expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(got, infer_logits(model.train(), data, IDS, runtime=RUNTIME))


def test_queries_are_the_flip_and_the_shift(colour):
    data = DeviceData(colour)
    queries = ("identity", "flip", "shift:2,-1")
    got = infer_logits(Echo(), data, IDS, runtime=RUNTIME, queries=queries).reshape(IDS.size, 3, 3, 8, 8)
    x, black = got[:, 0], -2.0
    np.testing.assert_array_equal(got[:, 1], x[..., ::-1])
    np.testing.assert_array_equal(got[:, 2, :, :-1, 2:], x[:, :, 1:, :-2])
    assert (got[:, 2, :, -1] == black).all()
    assert (got[:, 2, :, :, :2] == black).all()


def test_peer_defect_20_every_model_is_asked_the_same(colour):
    """Row 20 (a LiRA port): augmentations were drawn anew for each model."""
    data, queries = DeviceData(colour), ("identity", "flip", "shift:1,1")

    def ours(model):
        return infer_logits(model, data, IDS, runtime=RUNTIME, queries=queries)

    def faulty(model):
        draws = [f"shift:{dx},{dy}" for dx, dy in torch.randint(-2, 3, (3, 2)).tolist()]
        return infer_logits(model, data, IDS, runtime=RUNTIME, queries=draws)

    def check(ask):
        torch.manual_seed(0)
        asked = []
        for scale in (1.0, 2.0):
            asked.append(ask(Echo(scale)) / scale)
            torch.rand(7)  # whatever happens between two models
        np.testing.assert_array_equal(*asked)

    check(ours)
    with pytest.raises(AssertionError):
        check(faulty)


class Transfers(TorchFunctionMode):
    """Counts what brings values from the device to the host."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ("cpu", "item", "tolist"):
            self.n += 1
        return func(*args, **(kwargs or {}))


def test_peer_defect_6_one_transfer_out(colour):
    """Row 6 (LeakPro): the answers went to the CPU after every batch."""
    data, model = DeviceData(colour), normal()

    def ours():
        infer_logits(model, data, IDS, runtime=RUNTIME, queries=("identity", "flip"))

    def faulty():
        rows = []
        for part in torch.split(data.positions(IDS), RUNTIME.inference_batch):
            rows += model.eval()(data.inputs(part)).cpu().tolist()

    def check(ask):
        with Transfers() as transfers:
            ask()
        assert transfers.n == 1

    check(ours)
    with pytest.raises(AssertionError):
        check(faulty)


class Moody(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(192, 4)

    def forward(self, x):
        return self.head(nn.functional.dropout(x.flatten(1), 0.5))


def test_answers_that_cannot_be_used_are_refused(colour, dataset_of):
    data = DeviceData(colour)
    with pytest.raises(UnsupportedModel, match="different answers"):
        infer_logits(Moody(), data, IDS, runtime=RUNTIME)
    with pytest.raises(UnsupportedModel, match="3 outputs, the data set has 4"):
        infer_logits(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), data, IDS, runtime=RUNTIME)
    with pytest.raises(UnsupportedModel, match=r"\(16, 3, 8, 8\) for 16 records"):
        infer_logits(nn.Identity(), data, IDS, runtime=RUNTIME)
    broken = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    broken[1].bias.data[2] = torch.inf
    with pytest.raises(AuditError, match="43 of 43 records are not finite .ids 150, 3, 77"):
        infer_logits(broken, data, IDS, runtime=RUNTIME)
    with pytest.raises(InvalidInput, match="query='rotate'"):
        infer_logits(Echo(), data, IDS, runtime=RUNTIME, queries=("rotate",))
    table = DeviceData(dataset_of(np.zeros((10, 3), np.float32), np.arange(10) % 2))
    with pytest.raises(InvalidInput, match="table can only be asked 'identity'"):
        infer_logits(Echo(), table, np.arange(3), runtime=RUNTIME, queries=("flip",))


def test_half_precision_models_answer_in_float32(colour):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).to(torch.bfloat16)
    assert infer_logits(model, DeviceData(colour), IDS, runtime=RUNTIME).dtype == np.float32

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from mnemoscope.audit.errors import AuditError, InvalidInput, UnsupportedModel
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.draws import record_normals, record_uniforms
from mnemoscope.audit.models.inference import infer_logits, parse_query
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
    for query in ("flip", "shift:1,0", "rotate:3"):
        with pytest.raises(InvalidInput, match="table can only be asked 'identity'"):
            infer_logits(Echo(), table, np.arange(3), runtime=RUNTIME, queries=(query,))
    with pytest.raises(InvalidInput, match="these are images"):
        infer_logits(Echo(), data, IDS, runtime=RUNTIME, queries=("flips:0.1:0",))
    table = DeviceData(dataset_of(np.full((10, 3), 0.5, np.float32), np.arange(10) % 2))
    with pytest.raises(InvalidInput, match="holds other values"):
        infer_logits(Echo(), table, np.arange(3), runtime=RUNTIME, queries=("flips:0.1:0",))
    for query in (
        "noise:1",
        "noise:-1:0",
        "noise:1:-1",
        "flips:1.5:0",
        "rotate:nan",
        "noise:1e999:0",
        "noise:1:9" + "9" * 20,
    ):
        with pytest.raises(InvalidInput, match="query="):
            parse_query(query)


def test_half_precision_models_answer_in_float32(colour):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).to(torch.bfloat16)
    assert infer_logits(model, DeviceData(colour), IDS, runtime=RUNTIME).dtype == np.float32


def mixed(x):
    """SplitMix64's finaliser in whole numbers of Python."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def test_draws_are_splitmix64_bit_by_bit():
    """Against the published generator, whose first outputs from seed 0 are known."""
    golden = 0x9E3779B97F4A7C15
    assert [mixed(golden), mixed(2 * golden % 2**64)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
    for index, record in ((0, 0), (3, 17), (2**62 - 1, 10**12)):
        seed = mixed((mixed(index * golden % 2**64) + (record + 1) * golden) % 2**64)
        bits = [mixed((seed + place * golden) % 2**64) for place in range(1, 6)]
        drawn = record_uniforms(torch.tensor([record]), index, 5)[0].tolist()
        assert drawn == [((b >> 11) + 0.5) * 2.0**-53 for b in bits]
        radius = [np.sqrt(-2 * np.log(((b >> 32) + 0.5) / 2**32)) for b in bits[:3]]
        angle = [2 * np.pi * (b % 2**32) / 2**32 for b in bits[:3]]
        normals = [*(radius * np.cos(angle)), *(radius * np.sin(angle))[:2]]
        np.testing.assert_allclose(record_normals(torch.tensor([record]), index, 5)[0], normals, rtol=1e-12)


def test_draws_are_normal_and_parted_by_index_and_record():
    draws = torch.stack([record_normals(torch.arange(200), index, 1001) for index in range(4)])
    assert draws.shape == (4, 200, 1001)
    se = draws.numel() ** -0.5
    assert abs(draws.mean()) < 4 * se
    assert abs((draws**2).mean() - 1) < 4 * 2**0.5 * se
    assert abs((draws**4).mean() - 3) < 4 * 96**0.5 * se
    neighbours = [
        draws[1:] * draws[:-1],
        draws[:, 1:] * draws[:, :-1],
        draws[..., 1:] * draws[..., :-1],
        draws[..., :500] * draws[..., 501:1001],
    ]
    for product in neighbours:
        assert abs(product.mean()) < 4.5 * product.numel() ** -0.5


def test_noise_belongs_to_record_and_index_alone(colour):
    """Whatever the batch, the order, the other records on the device, and whatever was drawn before."""
    queries = ("identity", "noise:0.5:0", "noise:0.5:1", "noise:1:0", "noise:0:0")
    colour.ids.flags.writeable = False  # as those of a Dataset are
    got = infer_logits(Echo(), DeviceData(colour), IDS, runtime=RUNTIME, queries=queries)
    noise = got[:, 1:] - got[:, :1]
    torch.rand(5)
    part = DeviceData(colour, ids=IDS[::-1].copy())
    batches = Runtime(device="cpu", inference_batch=5)
    again = infer_logits(Echo(), part, IDS[::-1].copy(), runtime=batches, queries=queries)
    np.testing.assert_array_equal(again[::-1], got)
    np.testing.assert_allclose(noise[:, 2], 2 * noise[:, 0], atol=1e-6)
    assert (noise[:, 3] == 0).all()
    assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(noise[1:, 0].ravel(), noise[:-1, 0].ravel())[0, 1]) < 0.05
    assert noise[:, 0].std() == pytest.approx(0.5, rel=0.03)


def test_noise_is_added_after_normalisation_to_tables_too(dataset_of):
    rows = np.random.default_rng(0).normal(50, 20, (40, 7)).astype(np.float32)
    data = DeviceData(dataset_of(rows, np.arange(40) % 2))
    ids = np.arange(40)
    got = infer_logits(Echo(), data, ids, runtime=RUNTIME, queries=("identity", "noise:0.1:2"))
    np.testing.assert_allclose(got[:, 1] - got[:, 0], 0.1 * record_normals(torch.arange(40), 2, 7), atol=1e-6)


def test_flips_turn_over_bits_at_their_rate(dataset_of):
    rows = np.random.default_rng(0).integers(0, 2, (60, 200)).astype(np.float32)
    data = DeviceData(dataset_of(rows, np.arange(60) % 2))
    queries = ("identity", "flips:0.2:0", "flips:0.3:0", "flips:0.2:1", "flips:1:5", "flips:0:5")
    got = infer_logits(Echo(), data, np.arange(60), runtime=RUNTIME, queries=queries)
    assert set(np.unique(got)) == {0.0, 1.0}
    turned = got[:, 1:] != got[:, :1]
    assert turned[:, 0].mean() == pytest.approx(0.2, abs=4 * (0.16 / 12000) ** 0.5)
    assert (turned[:, 1] >= turned[:, 0]).all()  # one draw, a higher rate
    assert (turned[:, 0] & turned[:, 2]).mean() == pytest.approx(0.04, abs=0.01)
    assert turned[:, 3].all()
    assert not turned[:, 4].any()
    batches = Runtime(device="cpu", inference_batch=7)
    again = infer_logits(Echo(), data, np.arange(60)[::-1].copy(), runtime=batches, queries=queries)
    np.testing.assert_array_equal(again[::-1], got)


def test_turns_are_bilinear_about_the_centre_and_zeros_come_in(dataset_of):
    """Against SciPy's rotation in raw values; the image is not square, so the ratio of its sides matters."""
    from scipy.ndimage import rotate

    values = np.random.default_rng(1).integers(0, 256, (6, 9, 12, 3), dtype=np.uint8)
    data = DeviceData(dataset_of(values, np.arange(6) % 2))
    queries = ("rotate:10", "rotate:-37.5", "rotate:90", "rotate:0", "identity")
    got = infer_logits(Echo(), data, np.arange(6), runtime=RUNTIME, queries=queries).reshape(6, 5, 3, 9, 12)
    for q, degrees in enumerate((10, -37.5, 90)):
        turned = rotate(
            values.astype(np.float64), degrees, axes=(2, 1), reshape=False, order=1, mode="grid-constant", cval=0.0
        )
        expected = np.moveaxis((turned / 255 - 0.5) / 0.25, -1, 1)
        np.testing.assert_allclose(got[:, q], expected, atol=1e-3)
    np.testing.assert_array_equal(got[:, 3], got[:, 4])
    square = DeviceData(dataset_of(values[:, :, :9], np.arange(6) % 2))
    turned = infer_logits(Echo(), square, np.arange(6), runtime=RUNTIME, queries=("identity", "rotate:90"))
    turned = turned.reshape(6, 2, 3, 9, 9)
    np.testing.assert_allclose(turned[:, 1], np.rot90(turned[:, 0], axes=(-2, -1)), atol=1e-3)

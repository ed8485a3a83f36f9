import pytest
import torch
from torch import nn

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.architectures import architecture_names, build_model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mlp:32-16", (446,)),
        ("mlp:8", (1, 8, 8)),
        ("small_cnn", (1, 8, 8)),
        ("small_cnn", (3, 32, 32)),
        ("resnet18", (1, 28, 28)),
        ("mobilenet_v3_small", (3, 32, 32)),
        ("vgg11", (3, 32, 32)),
        ("vit_b_16", (3, 32, 32)),
    ],
)
def test_architectures_answer_for_any_channels_and_classes(name, shape):
    model = build_model(name, input_shape=shape, n_classes=7, seed=0).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.slow
def test_small_images_get_a_small_stem_and_large_ones_their_own():
    small = build_model("resnet18", input_shape=(3, 32, 32), n_classes=10, seed=0)
    assert (small.conv1.kernel_size, small.conv1.stride) == ((3, 3), (1, 1))
    assert isinstance(small.maxpool, nn.Identity)
    assert sum(p.numel() for p in small.parameters()) == 11_173_962
    large = build_model("resnet18", input_shape=(3, 96, 96), n_classes=10, seed=0)
    assert (large.conv1.kernel_size, large.conv1.stride) == ((7, 7), (2, 2))
    assert isinstance(large.maxpool, nn.MaxPool2d)
    grey = build_model("densenet121", input_shape=(1, 32, 32), n_classes=10, seed=0)
    assert grey.features.conv0.weight.shape == (64, 1, 3, 3)
    assert isinstance(grey.features.pool0, nn.Identity)


@pytest.mark.parametrize("name", ["mlp:16", "small_cnn", "resnet18"])
def test_the_seed_alone_decides_the_weights(name):
    def weights(seed, noise):
        torch.manual_seed(noise)
        state = torch.random.get_rng_state()
        model = build_model(name, input_shape=(3, 16, 16), n_classes=4, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), state)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(weights(2**62 + 1, 0), weights(2**62 + 1, 1))
    assert not torch.equal(weights(1, 0), weights(2, 0))


def test_mistakes_are_named():
    with pytest.raises(InvalidInput, match="did you mean 'resnet18'"):
        build_model("resnet-18", input_shape=(3, 32, 32), n_classes=10, seed=0)
    with pytest.raises(InvalidInput, match="widths"):
        build_model("mlp:a", input_shape=(3,), n_classes=10, seed=0)
    with pytest.raises(UnsupportedModel, match="takes images"):
        build_model("resnet18", input_shape=(446,), n_classes=10, seed=0)
    with pytest.raises(UnsupportedModel, match="alexnet cannot take"):
        build_model("alexnet", input_shape=(3, 4, 4), n_classes=10, seed=0)
    assert {"mlp:256", "small_cnn", "resnet18"} <= set(architecture_names())

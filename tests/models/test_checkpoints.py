import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.architectures import build_model
from mnemoscope.audit.models.checkpoints import (
    file_digest,
    load_into,
    load_state,
    model_bytes,
    module_digest,
    save_model,
)


def model(seed=0, width=8):
    return build_model(f"mlp:{width}", input_shape=(5,), n_classes=3, seed=seed)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_what_is_saved_comes_back_and_equal_models_give_equal_files(tmp_path):
    one, path = model(1), tmp_path / "m.safetensors"
    notes = {"seed": "1", "recipe": "digits-mlp", "z": "é", "a": ""}
    digest = save_model(one, path, notes)
    assert file_digest(path) == digest
    assert len({model_bytes(model(1), notes) for _ in range(5)}) == 1
    assert os.listdir(tmp_path) == ["m.safetensors"]
    other = model(2)
    assert not same(one, other)
    assert load_into(other, path) == ""
    assert same(one, other)
    assert module_digest(one) == module_digest(other) != module_digest(model(3))


def test_tied_and_strided_weights_are_saved(tmp_path):
    tied = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)).to(memory_format=torch.channels_last)
    tied[1].weight = tied[0].weight
    save_model(tied, tmp_path / "t.safetensors")
    fresh = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    load_into(fresh, tmp_path / "t.safetensors")
    assert same(tied, fresh)


@pytest.mark.parametrize("nest", [None, "state_dict", "model_state_dict", "model", "ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod."])
def test_nests_and_one_prefix_are_found_and_named(nest, prefix, tmp_path):
    one, other = model(1), model(2)
    state = {prefix + name: tensor for name, tensor in one.state_dict().items()}
    torch.save({nest: state, "epoch": 3} if nest else state, tmp_path / "c.pt")
    note = load_into(other, tmp_path / "c.pt")
    assert same(one, other)
    assert (repr(nest) in note) == (nest is not None)
    assert (f"prefix {prefix!r}" in note) == bool(prefix)


def test_a_prefix_that_is_the_models_own_name_stays(tmp_path):
    class Wrapped(nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.model = model(seed)

    save_model(Wrapped(1), tmp_path / "w.safetensors")
    target = Wrapped(2)
    assert load_into(target, tmp_path / "w.safetensors") == ""
    assert same(target, Wrapped(1))
    bare = model(5)
    assert "'model.'" in load_into(bare, tmp_path / "w.safetensors")
    assert same(bare, model(1))


def test_averaged_models_and_the_choice_among_nests(tmp_path):
    state = {"module." + k: v for k, v in model(1).state_dict().items()}
    torch.save({"ema": {}, "model": {**state, "n_averaged": torch.tensor(4)}}, tmp_path / "a.pt")
    target = model(2)
    note = load_into(target, tmp_path / "a.pt")
    assert same(target, model(1))
    assert "also ema" in note
    assert "n_averaged" in note


def test_bf16_and_cuda_tensors_load_on_the_cpu(tmp_path, monkeypatch):
    half = {name: tensor.to(torch.bfloat16) for name, tensor in model(1).state_dict().items()}
    save_file(half, tmp_path / "h.safetensors")
    target = model(2)
    load_into(target, tmp_path / "h.safetensors")
    assert all(p.dtype == torch.float32 for p in target.parameters())
    assert torch.equal(target[1].weight, half["1.weight"].float())
    # A file written on a GPU differs from one written here in the location tag of each storage.
    torch.save(model(1).state_dict(), tmp_path / "cpu.pt")
    with zipfile.ZipFile(tmp_path / "cpu.pt") as source, zipfile.ZipFile(tmp_path / "gpu.pt", "w") as out:
        for item in source.infolist():
            content = source.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"X\x03\x00\x00\x00cpu" in content
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            out.writestr(item, content)
    state, _ = load_state(tmp_path / "gpu.pt")
    assert {tensor.device.type for tensor in state.values()} == {"cpu"}
    load_into(target, tmp_path / "gpu.pt")
    assert same(target, model(1))


class Bomb:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("kind", ["torch", "legacy", "plain", "nested"])
@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
def test_a_pickle_posing_as_a_checkpoint_is_refused_and_not_run(kind, name, tmp_path):
    marker, path = tmp_path / "ran", tmp_path / name
    bomb = Bomb(f"touch {marker}")
    if kind == "plain":
        path.write_bytes(pickle.dumps(bomb))
    else:
        content = {"state_dict": model().state_dict(), "extra": bomb} if kind == "nested" else bomb
        torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy")
    with pytest.raises(UnsupportedModel) as caught:
        load_state(path)
    assert "system" in str(caught.value)
    assert not marker.exists()


class Net(nn.Sequential):
    pass


@pytest.mark.parametrize("kind", ["module", "with numpy", "module inside"])
def test_the_three_line_conversion_works_as_printed(kind, tmp_path, monkeypatch):
    one, path = model(1), tmp_path / "whole.pt"
    if kind == "module":
        torch.save(one, path)
    elif kind == "with numpy":
        torch.save({"model": one.state_dict(), "best": np.float64(0.9), "epoch": 3}, path)
    else:
        torch.save({"model": one, "optimizer": {"x": np.float64(1)}}, path)
    with pytest.raises(UnsupportedModel) as caught:
        load_state(path)
    message = str(caught.value)
    assert "torch.nn.modules.container.Sequential" in message or "numpy" in message
    lines = message.splitlines()[1:]
    assert len(lines) == 3
    exec("\n".join(lines), {})
    target = model(2)
    load_into(target, tmp_path / "whole.weights.pt")
    assert same(target, one)


def test_a_checkpoint_that_does_not_fit_changes_nothing_and_says_where(tmp_path):
    save_model(model(1, width=9), tmp_path / "wide.safetensors")
    target = model(2)
    before = module_digest(target)
    with pytest.raises(UnsupportedModel, match=r"other shapes: 1.weight \(9, 5\) instead of \(8, 5\)"):
        load_into(target, tmp_path / "wide.safetensors")
    state = model(1).state_dict()
    del state["1.bias"]
    torch.save({**state, "odd": torch.zeros(1)}, tmp_path / "odd.pt")
    with pytest.raises(UnsupportedModel, match=r"missing: 1.bias; unexpected: odd\. Check that model\(\)"):
        load_into(target, tmp_path / "odd.pt")
    torch.save({f"w{i}": torch.zeros(1) for i in range(10)}, tmp_path / "many.pt")
    with pytest.raises(UnsupportedModel, match=r"unexpected: w0, w1, w2, w3 and 6 more"):
        load_into(target, tmp_path / "many.pt")
    assert module_digest(target) == before


def test_other_files_are_refused_by_reason(tmp_path):
    with pytest.raises(InvalidInput, match="cannot read checkpoint"):
        load_state(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("hello, this is not a model")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "cut.safetensors").write_bytes(model_bytes(model())[:-5])
    for name in ("text.pt", "empty.pt", "cut.safetensors"):
        with pytest.raises(UnsupportedModel, match=name):
            load_state(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UnsupportedModel, match="holds a list"):
        load_state(tmp_path / "list.pt")
    torch.save({"epoch": 1}, tmp_path / "none.pt")
    with pytest.raises(UnsupportedModel, match="no tensors by name .its keys: epoch"):
        load_state(tmp_path / "none.pt")
    bad = model()
    bad[1].weight.data[0, 0] = torch.nan
    save_model(bad, tmp_path / "nan.safetensors")
    with pytest.raises(UnsupportedModel, match=r"1\.weight hold values that are not finite"):
        load_state(tmp_path / "nan.safetensors")
    with pytest.raises(InvalidInput, match="cannot write"):
        save_model(model(), tmp_path / "no" / "folder.safetensors")


def test_old_files_without_batch_counters_load(tmp_path):
    net = nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5))
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    (tmp_path / "old.pt").write_bytes(buffer.getvalue())
    load_into(nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5)), tmp_path / "old.pt")

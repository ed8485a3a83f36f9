import copy
import sys
import textwrap

import numpy as np
import pytest
import torch

from mnemoscope.audit.errors import InvalidInput, UnsupportedModel
from mnemoscope.audit.models.checkpoints import load_into, save_model
from mnemoscope.audit.models.data import DeviceData
from mnemoscope.audit.models.inference import infer_logits
from mnemoscope.audit.models.recipes import Recipe, Runtime
from mnemoscope.audit.models.subject import load_subject, subject_template
from mnemoscope.audit.models.training import train_model

RUNTIME = Runtime(device="cpu")


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder / "subject.py"


PLAIN = """
    from torch import nn
    def model():
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
"""


def test_the_template_loads_as_it_is(tmp_path):
    path = tmp_path / "subject.py"
    path.write_text(subject_template())
    subject = load_subject(path)
    assert subject.classes is None
    assert not subject.has_transform
    assert subject.build(seed=0)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_two_subjects_with_helpers_of_the_same_name_do_not_mix(tmp_path):
    text = """
        from torch import nn
        import helper
        from lib.parts import WIDTH
        def model():
            import late            # imported when called, not when loaded
            return nn.Linear(helper.INPUTS, WIDTH + late.MORE)
        def logits(model, batch):
            import late
            return model(batch) * late.MORE
    """
    subjects = []
    for k in (1, 2):
        files = {"helper": f"INPUTS = {k}", "late": f"MORE = {k}", "lib__parts": f"WIDTH = {10 * k}"}
        subjects.append(load_subject(write(tmp_path / str(k), subject=text, **files)))
    before = dict(sys.modules)
    for k, subject in ((1, subjects[0]), (2, subjects[1]), (1, subjects[0])):
        made = subject.build(seed=0)
        assert made.inner.weight.shape == (11 * k, k)
        assert torch.equal(made(torch.ones(3, k)), made.inner(torch.ones(3, k)) * k)
    assert dict(sys.modules) == before
    assert not {"helper", "late", "lib", "lib.parts"} & set(sys.modules)
    assert subjects[0].digest != subjects[1].digest
    assert subjects[0].files == ("helper.py", "late.py", "lib/parts.py", "subject.py")


def test_modules_of_the_user_that_are_already_loaded_come_back(tmp_path, monkeypatch):
    theirs = type(sys)("helper")
    theirs.INPUTS = "theirs"
    monkeypatch.setitem(sys.modules, "helper", theirs)
    path = write(
        tmp_path,
        helper="INPUTS = 5",
        torch="raise RuntimeError('not the real torch')",
        json="raise RuntimeError('not the real json')",
        subject="""
            import helper, json, torch
            def model():
                return torch.nn.Linear(helper.INPUTS, 2)
        """,
    )
    assert load_subject(path).build(seed=0).inner.in_features == 5
    assert sys.modules["helper"] is theirs
    assert sys.modules["torch"] is torch


def test_the_digest_follows_the_code_that_runs_and_not_the_place(tmp_path):
    text = "import helper\nfrom torch import nn\ndef model():\n    return nn.Linear(helper.N, 2)\n"
    paths = [write(tmp_path / place, subject=text, helper="N = 3", unused="x = 1") for place in ("a", "b")]
    first = load_subject(paths[0])
    assert load_subject(paths[1]).digest == first.digest
    write(tmp_path / "a", unused="x = 2")
    assert load_subject(paths[0]).digest == first.digest
    write(tmp_path / "a", helper="N = 4")  # same size, same second: stale bytecode would still say 3
    changed = load_subject(paths[0])
    assert changed.digest != first.digest
    assert changed.build(seed=0).inner.in_features == 4


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"subject": "def model():\n    return 1 / 0\n"}, r"subject\.py, line 2, in model: `return 1 / 0` raised Zero"),
        ({"subject": "import helper\n", "helper": "x = [][3]\n"}, r"helper\.py, line 1, in <module>: .*IndexError"),
        ({"subject": "def model(:\n"}, r"subject\.py, line 1: SyntaxError"),
        ({"subject": "x = 1\n"}, r"must define the function model\(\)"),
        ({"subject": "def model():\n    return 'net'\n"}, r"model\(\) returned str"),
        ({"subject": "import absent_module\n"}, r"line 1.*ModuleNotFoundError"),
        ({"subject": "classes = ['a', 'a']\ndef model(): ...\n"}, "distinct names"),
    ],
)  # fmt: skip
def test_faults_name_the_users_line(files, message, tmp_path):
    before = dict(sys.modules)
    with pytest.raises(UnsupportedModel, match=message):
        load_subject(write(tmp_path, **files))
    assert dict(sys.modules) == before
    with pytest.raises(InvalidInput, match="mnemoscope init"):
        load_subject(tmp_path / "absent.py")


def test_outputs_with_logits_are_unwrapped_and_own_logits_win(tmp_path, colour):
    wrapped = """
        from types import SimpleNamespace
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(192, 4)
            def forward(self, x):
                return {output}
        def model():
            return Net()
        {more}
    """
    scores = "self.head(x.flatten(1))"
    cases = {
        "dot": (f"SimpleNamespace(logits={scores})", ""),
        "own": (f"{{'scores': {scores}}}", "def logits(model, batch): return model(batch)['scores']"),
        "none": (f"{{'scores': {scores}}}", ""),
    }
    data = DeviceData(colour)
    for name, (output, more) in cases.items():
        subject = load_subject(write(tmp_path / name, subject=wrapped.format(output=output, more=more)))
        module = subject.build(seed=3)
        if name == "none":
            with pytest.raises(UnsupportedModel, match=r"returned dict.*define logits\(model, batch\)"):
                infer_logits(module, data, np.arange(5), runtime=RUNTIME)
            continue
        got = infer_logits(module, data, np.arange(5), runtime=RUNTIME)
        expected = module.inner.head(data.inputs(torch.arange(5)).flatten(1)).detach().numpy()
        np.testing.assert_allclose(got[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_transform_is_applied_once_to_each_pil_image(tmp_path, colour, dataset_of):
    path = write(
        tmp_path,
        subject=PLAIN
        + """
    from torchvision import transforms
    seen = []
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.1,) * 3)])
    def transform(image):
        seen.append(image.mode)
        return steps(image)
    """,
    )
    subject = load_subject(path)
    data = DeviceData(colour, subject=subject, ids=np.array([9, 4]))
    for _ in range(2):
        got = data.inputs(data.positions(np.array([9, 4])))
    expected = ((colour.values[[9, 4]] / 255 - 0.5) / 0.1).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)
    assert subject._module.seen == ["RGB", "RGB"]
    assert data.input_shape == (3, 8, 8)
    grey = subject.transform_values  # one channel arrives as mode L
    with pytest.raises(UnsupportedModel):
        grey(np.zeros((1, 8, 8, 1), np.uint8))
    assert subject._module.seen[-1] == "L"
    varying = PLAIN + "\n    def transform(row):\n        return row[: int(row[0])]\n"
    table = dataset_of(np.array([[2, 0, 0], [1, 0, 0]], np.float32), [0, 1])
    with pytest.raises(UnsupportedModel, match=r"shape \(1,\) for record 1; it must give a tensor of shape \(2,\)"):
        DeviceData(table, subject=load_subject(write(tmp_path / "v", subject=varying)))


def test_a_subject_trains_saves_and_loads_like_any_model(tmp_path, colour):
    subject = load_subject(write(tmp_path, subject=PLAIN))
    data = DeviceData(colour, subject=subject)
    recipe = Recipe("subject", lr=0.1, epochs=2, batch_size=32, subject=subject.digest)
    ids = np.arange(60)
    runs = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        runs.append(train_model(recipe, data, ids, seed=1, runtime=RUNTIME).module)
    asked = [infer_logits(module, data, ids, runtime=RUNTIME) for module in runs]
    assert np.array_equal(*asked)
    save_model(runs[0], tmp_path / "s.safetensors")
    again = subject.build(seed=9)
    load_into(again, tmp_path / "s.safetensors")
    load_into(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4)), tmp_path / "s.safetensors")
    assert np.array_equal(infer_logits(copy.deepcopy(again), data, ids, runtime=RUNTIME), asked[0])
    with pytest.raises(InvalidInput, match="has changed since"):
        train_model(Recipe("subject", subject="sha256:0"), data, ids, seed=1, runtime=RUNTIME)
    with pytest.raises(InvalidInput, match=r"needs the user's subject\.py"):
        train_model(recipe, DeviceData(colour), ids, seed=1, runtime=RUNTIME)


def test_answering_a_batch_does_not_search_all_modules(tmp_path, monkeypatch):
    """The folder is entered for every batch: asking all modules where they are from would cost more than it."""
    path = write(
        tmp_path,
        subject="""
        from torch import nn
        import helper
        def model():
            return nn.Linear(3, 2)
        """,
        helper="WIDTH = 2",
    )
    subject = load_subject(path)
    model, asked, finder = subject.build(seed=0), [], subject._world.finder
    owns = type(finder).owns
    monkeypatch.setattr(type(finder), "owns", lambda self, module: asked.append(module) or owns(self, module))
    model(torch.zeros(1, 3))
    assert len(asked) < 10
    assert "helper" not in sys.modules

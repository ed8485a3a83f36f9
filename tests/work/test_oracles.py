"""Live access to the models of a store: loaded when asked, few in memory, the answers of the recorded ones."""

import gc
import weakref

import numpy as np
import pytest

from mnemoscope.audit.errors import AuditError
from mnemoscope.audit.work import workspace as module
from mnemoscope.audit.work.store import Store
from mnemoscope.audit.work.workspace import ModelRef


@pytest.mark.slow
def test_oracles_answer_as_recorded_and_keep_two_models(small, trained, monkeypatch):
    work = small.workspace(Store(trained))
    refs = work.fleet("before")
    ids = work.design.audited
    recorded = work.answers(refs, ids)
    alive = []
    load = type(work._bench).load_model

    def watched(bench, key):
        model = load(bench, key)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr(type(work._bench), "load_model", watched)
    oracles = work.oracles(refs)
    assert alive == []
    for oracle, logits in zip(oracles, recorded, strict=True):
        assert np.array_equal(oracle.logits(oracle.inputs(ids)).numpy(), logits[:, 0])
        assert oracle.predictions == ids.size
        oracle.predict(oracle.inputs(ids[:3]))
    assert len(alive) == len(refs)
    gc.collect()
    assert sum(ref() is not None for ref in alive) <= module.LOADED == 2


def test_an_untrained_model_comes_from_the_recipe(small, trained):
    work = small.workspace(Store(trained))
    oracle = work.oracles(work.fleet("before")[:1], white_box=False)[0]
    own = {name: value.shape for name, value in work.model(work.fleet("before")[0]).state_dict().items()}
    assert {name: value.shape for name, value in oracle.fresh_module(3).state_dict().items()} == own
    assert not oracle.white_box


def test_models_known_by_their_answers_cannot_be_asked(small, trained):
    work = small.workspace(Store(trained))
    with pytest.raises(AuditError, match="model 4 of 'retrained A'"):
        work.oracles([ModelRef("retrained A", 4, "0" * 64, None, 0.0, "adopted")])

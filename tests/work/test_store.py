"""The store: whole or not there, verified on use, and no silent change of what was put in."""

import errno
import hashlib
import io
import json
import os
import pickle
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mnemoscope.audit.errors import InvalidInput, StaleArtifact, StoreError
from mnemoscope.audit.work import files
from mnemoscope.audit.work.keys import canonical_json, content_key, ids_digest, plain_json
from mnemoscope.audit.work.store import Store, load_array


def key(number: int) -> str:
    return content_key("test", 1, {"number": number})


def blobs(store: Store) -> list[Path]:
    return store.list_files("blobs/sha256", "*/*")


def test_round_trip_of_every_saved_type_also_in_a_new_process_view(tmp_path: Path) -> None:
    source = tmp_path / "given.bin"
    source.write_bytes(os.urandom(3_000_000))
    arrays = {
        "float.npy": np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4),
        "ids.npy": np.array([3, 1, 2], np.int64),
        "bytes.npy": np.arange(6, dtype=np.uint8).reshape(2, 3).T,
        "flags.npy": np.array([True, False]),
        "scalar.npy": np.array(2.5),
        "empty.npy": np.empty((0, 4), np.float32),
    }
    meta = {"seconds": 0.1, "n": 2**62 + 1, "list": [1, "a", None, True], "nested": {"ü": -1.5e-300}}
    inputs = {"seed": 2**63 - 1, "recipe": {"lr": 0.1}}
    Store(tmp_path / "store").put(key(1), {"raw": b"\x00\xff", "copy.bin": source, **arrays}, meta=meta, inputs=inputs)
    entry = Store(tmp_path / "store").get(key(1))
    assert entry is not None
    assert entry.meta == meta
    assert entry.inputs == inputs
    assert entry.read("raw") == b"\x00\xff"
    assert entry.read("copy.bin") == source.read_bytes()
    for name, array in arrays.items():
        back = entry.array(name)
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        assert np.array_equal(back, array)
        assert not back.flags.writeable
    assert isinstance(entry.array("float.npy"), np.memmap)


def test_equal_content_is_kept_once_and_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    store = Store(tmp_path / "a")
    store.put(key(1), {"x.npy": np.arange(5)})
    store.put(key(2), {"y.npy": np.arange(5)})
    assert len(blobs(store)) == 1
    other = Store(tmp_path / "b")
    other.put(key(1), {"x.npy": np.arange(5)})
    assert store.key_path(key(1)).read_bytes() == other.key_path(key(1)).read_bytes()


def test_first_commit_stands(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    store.put(key(1), {"x": b"first"})
    assert store.put(key(1), {"x": b"second"}).read("x") == b"first"
    assert "different bits" in caplog.text


def test_concurrent_writers_of_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda n: Store(tmp_path).put(key(n % 3), {"x.npy": np.full(1000, n % 3)}), range(48)))
    assert {int(entry.array("x.npy")[0]) for entry in entries} == {0, 1, 2}
    report = Store(tmp_path).verify()
    assert report.ok
    assert (report.n_keys, report.n_blobs, report.orphans) == (3, 3, ())
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("same_size", [True, False])
def test_damage_is_named_set_aside_and_healed_by_recomputing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, same_size: bool
) -> None:
    store = Store(tmp_path)
    store.put(key(1), {"model.bin": b"weights"})
    (blob,) = blobs(store)
    blob.write_bytes(b"WEIGHTS" if same_size else b"")
    report = store.verify()
    assert not report.ok
    assert report.damaged == (blob.name,)
    assert store.get(key(1)) is None
    assert "model.bin" in caplog.text
    assert str(blob) in caplog.text
    assert not blob.exists()
    assert any(path.name.startswith(blob.name) for path in (tmp_path / "quarantine").iterdir())
    store.put(key(1), {"model.bin": b"weights"})
    entry = Store(tmp_path).get(key(1))
    assert entry is not None
    assert entry.read("model.bin") == b"weights"
    assert Store(tmp_path).verify().ok


def test_damage_after_get_is_seen_on_use(tmp_path: Path) -> None:
    store = Store(tmp_path)
    entry = store.put(key(1), {"x": b"good"})
    assert entry.read("x") == b"good"
    blobs(store)[0].write_bytes(b"evil")
    with pytest.raises(StaleArtifact, match="damaged"):
        entry.read("x")


def test_put_heals_a_damaged_blob_that_no_one_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(key(1), {"x": b"good"})
    blobs(store)[0].write_bytes(b"evil")
    Store(tmp_path).put(key(2), {"x": b"good"})
    assert Store(tmp_path).verify().ok


def test_missing_blob_and_torn_or_edited_document_are_recomputed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    for number in (1, 2, 3):
        store.put(key(number), {"x": f"content {number}".encode()}, meta={"seconds": 1})
    store.blob_path(hashlib.sha256(b"content 1").hexdigest()).unlink()
    torn, edited = store.key_path(key(2)), store.key_path(key(3))
    torn.write_bytes(torn.read_bytes()[:-20])
    edited.write_text(edited.read_text().replace('"seconds": 1', '"seconds": 2'))
    report = store.verify()
    assert report.missing == (f"{key(1)}: x",)
    assert set(report.unreadable) == {torn.name, edited.name}
    assert [store.get(key(number)) for number in (1, 2, 3)] == [None, None, None]
    assert caplog.text.count("computed again") == 3
    store.put(key(2), {"x": b"content 2"})
    assert store.get(key(2)) is not None


def test_gc_takes_only_what_nothing_refers_to(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(key(1), {"a": b"one", "b": b"shared"})
    store.put(key(2), {"a": b"two", "b": b"shared"})
    orphan = store.blob_path("ab" + "0" * 62)
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"orphan")
    leftover = tmp_path / "tmp" / "1-dead.tmp"
    leftover.write_bytes(b"half")
    young = store.gc()
    assert (young.blobs, young.temporary) == (0, 0)  # a writer may be at work
    hour_ago = time.time() - 7200
    for path in (orphan, leftover, *blobs(store)):
        os.utime(path, (hour_ago, hour_ago))
    planned = store.gc(dry_run=True)
    assert (planned.keys, planned.blobs, planned.temporary, planned.n_bytes) == ((), 1, 1, 10)
    assert orphan.exists()
    assert store.gc().n_bytes == 10
    assert not orphan.exists()
    assert not leftover.exists()
    assert store.verify().ok
    assert store.gc(keep={key(1)}, older_than=3600).keys == ()
    report = store.gc(keep={key(1)})
    assert report.keys == (key(2),)
    assert report.blobs == 1
    assert [entry.key for entry in store.ls()] == [key(1)]
    assert store.verify().ok
    assert store.verify().n_blobs == 2


def test_gc_refuses_when_a_document_cannot_be_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put(key(1), {"x": b"1"})
    store.key_path(key(1)).write_bytes(b"{")
    with pytest.raises(StaleArtifact, match="cannot be read"):
        store.gc(grace=0)
    assert len(blobs(store)) == 1


class DiskFull:
    """The disk after ``budget`` more bytes."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.write = os.write

    def __call__(self, descriptor: int, data: memoryview) -> int:
        if len(data) > self.budget:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.budget -= len(data)
        return self.write(descriptor, data)


@pytest.mark.parametrize("budget", [0, 100, 4_200, 8_400])  # the marker, the first, the second file, the document
def test_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    store = Store(tmp_path)
    if budget:
        store.put(key(0), {"x": b"before"})
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "write", DiskFull(budget))
        with pytest.raises(StoreError, match="full; free space"):
            store.put(key(1), {"a.npy": np.arange(512), "b.npy": np.arange(512) + 1})
    assert key(1) not in store
    assert list((tmp_path / "tmp").iterdir()) == []
    assert Store(tmp_path).verify().ok
    store.put(key(1), {"a.npy": np.arange(512)})
    assert Store(tmp_path).get(key(1)) is not None


def test_a_limit_of_the_kernel_itself_is_a_sentence(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from mnemoscope.audit.work.store import Store\n"
        "from mnemoscope.audit.errors import StoreError\n"
        "store = Store(sys.argv[1])\n"
        "try: store.put('0' * 64, {'x.npy': np.zeros(1 << 17)})\n"
        "except StoreError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s")],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)),
    )
    assert "size limit" in done.stdout
    assert not Store(tmp_path / "s").ls()
    assert list((tmp_path / "s" / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_read_only_store_can_be_read_and_says_so_on_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    Store(tmp_path).put(key(1), {"x": b"1"})
    opened = os.open

    def read_only(path: object, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number))
        return opened(path, flags, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(files.os, "open", read_only)
    store = Store(tmp_path)
    entry = store.get(key(1))
    assert entry is not None
    assert entry.read("x") == b"1"
    with pytest.raises(StoreError, match="use (another|a) --store"):
        store.put(key(2), {"x": b"2"})
    assert key(2) not in store


def test_places_that_are_no_store(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(StoreError, match="is a file"):
        Store(file)
    with pytest.raises(StoreError, match="another --store"):
        Store(file / "below").put(key(1), {"x": b"1"})
    with pytest.raises(StoreError, match="holds other files"):
        Store(tmp_path)
    with pytest.raises(InvalidInput, match="local folder"):
        Store("s3://bucket/store")
    Store((tmp_path / "new").as_uri()).put(key(1), {"x": b"1"})
    assert key(1) in Store(tmp_path / "new")
    (tmp_path / "new" / "store.json").write_text('{"format": 99}')
    with pytest.raises(StoreError, match="format 99"):
        Store(tmp_path / "new")
    absent = Store(tmp_path / "absent")
    assert absent.get(key(1)) is None
    assert absent.ls() == ()
    assert not absent.root.exists()  # looking makes nothing


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("../x", b"", "plain name"),
        ("a.npy", np.array([{}], object), "pickle"),
        ("a", np.arange(2), "name it a.npy"),
        ("a", "text", "give bytes"),
        ("a", Path("absent"), "cannot read"),
    ],
)
def test_what_cannot_be_kept(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    store = Store(tmp_path)
    with pytest.raises(InvalidInput, match=match):
        store.put(key(1), {name: content})
    assert key(1) not in store


def test_peer_defect_16_and_11_a_cache_known_by_counts_serves_the_wrong_model(tmp_path: Path) -> None:
    # Row 16: shadows recognised by the number of sub-folders; row 11: signals by algorithm and row count.
    def by_count(shadows: list[bytes], model: bytes) -> str:
        return str(len(shadows))

    def by_algorithm_and_rows(algorithm: str, data: np.ndarray) -> str:
        return f"{algorithm}-{len(data)}"

    assert by_count([b"s1", b"s2"], b"model A") == by_count([b"s1", b"s2"], b"model B")  # stale hit
    a, b = np.zeros((5, 2)), np.ones((5, 2))
    assert by_algorithm_and_rows("loss", a) == by_algorithm_and_rows("loss", b)  # stale hit

    def ours(data: np.ndarray, recipe: dict[str, object]) -> str:
        digest = hashlib.sha256(data.tobytes()).hexdigest()
        return content_key("shadow", 1, {"data": digest, "recipe": recipe})

    store = Store(tmp_path)
    store.put(ours(a, {"lr": 0.1}), {"x": b"shadows of A"})
    assert store.get(ours(a, {"lr": 0.1})) is not None
    assert store.get(ours(b, {"lr": 0.1})) is None
    assert store.get(ours(a, {"lr": 0.2})) is None


def test_peer_defect_27_state_comes_back_as_it_was_or_is_refused(tmp_path: Path) -> None:
    state = {"done": {"apgd", "fab"}}
    faulty = json.loads(json.dumps(state, default=str))
    assert isinstance(faulty["done"], str)  # "in" then asks for sub-strings: resuming cannot work
    with pytest.raises(InvalidInput, match=r"meta\.done is a set"):
        Store(tmp_path).put(key(1), {}, meta=state)
    with pytest.raises(InvalidInput, match=r"value\.a\[1\]\.b is a PosixPath"):
        plain_json({"a": [1, {"b": Path("x")}]})
    for bad in (float("nan"), {1: 2}, np.arange(2), b"x"):
        with pytest.raises(InvalidInput):
            plain_json({"x": bad})


def test_peer_defect_30_pickles_are_refused_and_never_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    buffer = io.BytesIO()
    np.save(buffer, np.array([Hostile()], object), allow_pickle=True)
    hostile = tmp_path / "hostile.npy"
    for payload in (buffer.getvalue(), pickle.dumps(Hostile())):
        hostile.write_bytes(payload)
        with pytest.raises(InvalidInput, match="plain NumPy array"):
            load_array(hostile, "logits.npy")
        entry = Store(tmp_path / "store").put(content_key("h", 1, {"n": len(payload)}), {"x.npy": payload})
        with pytest.raises(InvalidInput, match="plain NumPy array"):
            entry.array("x.npy")
    assert not (tmp_path / "owned").exists()
    np.load(buffer.seek(0) or buffer, allow_pickle=True)  # the faulty way runs it
    assert (tmp_path / "owned").exists()


def test_canonical_json_is_independent_of_order_and_keeps_big_integers() -> None:
    assert canonical_json({"b": 1, "a": [1.0, 1e21]}) == b'{"a":[1,1e+21],"b":1}'
    assert canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1})
    assert content_key("k", 1, {"seed": 2**62}) != content_key("k", 1, {"seed": 2**62 + 1})
    assert float(2**62) == float(2**62 + 1)  # what a key through doubles would confuse
    assert content_key("k", 1, {"on": True}) != content_key("k", 1, {"on": 1})
    assert ids_digest(np.array([1, 2], np.int64)) == ids_digest(np.array([1, 2], np.int32).astype(np.int64))
    with pytest.raises(InvalidInput, match="Unicode"):
        canonical_json("\ud800")

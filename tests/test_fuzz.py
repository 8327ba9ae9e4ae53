"""Every reader of a file or of the database, given anything at all: what it should, or one clear error of ours."""

import contextlib
import io
import json
import math
import pickle
import struct
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from issgd_cli.config.config import Config
from issgd_cli.config.layers import assignments
from issgd_cli.config.passwords import without_password
from issgd_cli.config.toml import as_toml, read_toml
from issgd_cli.config.validation import resolve
from issgd_cli.database import SPLITS, Layout
from issgd_cli.database.documents import UnfitError, read_events, read_layout, read_pointer, read_start, read_status
from issgd_cli.database.records import FIELDS, Event, flaw
from issgd_cli.datasets import cifar10n, clouds, image, mat5, mnist, prepared, svhn, user
from issgd_cli.datasets.cifar import CIFAR10, CIFAR100
from issgd_cli.datasets.sources import silent
from issgd_cli.errors import ConfigError, DataError, IssgdError, RunError
from issgd_cli.experiments import experiment
from issgd_cli.networks.mlp import mlp
from issgd_cli.runs import cutting, traces
from issgd_cli.runs.audits import Audit, load_audit, save_audit
from issgd_cli.runs.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from issgd_cli.runs.folder import RunFolder
from issgd_cli.runs.parameters import load_parameters, save_parameters
from issgd_cli.runs.traces import Row, TraceWriter
from tests.datasets.test_cifar10n import torchs

LAYOUT = Layout(23, 5, 7, 10)

fuzzed = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content cut, with bytes changed, or with some put in."""
    spoiled = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(spoiled)))
        how = draw(st.sampled_from(["cut", "change", "insert", "number"]))
        if how == "cut":
            del spoiled[place : place + draw(st.integers(1, 200))]
        elif how == "insert":
            spoiled[place:place] = draw(st.binary(max_size=16))
        elif how == "number":
            spoiled[place : place + 4] = struct.pack("<I", draw(st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1])))
        elif place < len(spoiled):
            spoiled[place] = draw(st.integers(0, 255))
    return bytes(spoiled)


def spoils(content: bytes) -> st.SearchStrategy[bytes]:
    return damaged(content) | st.binary(max_size=300)


def reads(read: Callable[[], object], *kinds: type[IssgdError]) -> Any:
    """What is read, or None where it is refused by an error of these kinds with a text; nothing else may be raised."""
    with contextlib.suppress(*kinds):
        return read()
    return None


# The database's documents and records


@fuzzed
@given(
    content=st.binary(max_size=200)
    | anything.map(lambda value: json.dumps(value).encode())
    | damaged(b'{"process": 1, "seconds": 0.5, "bytes": 3, "examples": {"train": 8}, "doing": "wait", "loss": NaN}')
    | damaged(b'[["master", 0.5, 1.0, "train", 3], ["worker-0", 0, 1, "push", 3]]')
    | damaged(b'{"train": 23, "valid": 5, "test": 7, "chunk_size": 10}')
    | damaged(b"[1, 32, 76000000]")
    | damaged(b'{"life": "0f", "seconds": 1700000000.5}')
)
def test_documents_are_read_whole_or_refused(content: bytes) -> None:
    for read in (read_status, read_events, read_layout, read_pointer, read_start):
        found: Any = None
        with contextlib.suppress(UnfitError):
            found = read(content)
        if found is None:
            continue
        if read is read_events:
            assert all(isinstance(event, Event) and math.isfinite(event.end) for event in found)
        elif read is read_start:
            assert math.isfinite(found.seconds)
        elif read is read_pointer:
            assert found[0].version >= 1
            assert found[1] % 4 == 0
        elif read is read_layout:
            assert found.chunk_size > 0


@fuzzed
@given(content=st.binary(min_size=400, max_size=400), newest=st.integers(1, 2**31 - 1))
def test_records_without_a_flaw_define_a_proposal(content: bytes, newest: int) -> None:
    arrays = {
        name: np.frombuffer(content, field.dtype)[: 23 if field.per == "example" else 3]
        for name, field in FIELDS.items()
    }
    if flaw(arrays, newest) is None:
        assert np.isfinite(arrays["norms"]).all()
        assert (arrays["norms"] >= 0).all()
        assert (arrays["versions"] <= newest).all()
        assert (arrays["previous_versions"] <= arrays["versions"]).all()
    tame = {name: np.zeros_like(array) for name, array in arrays.items()}
    assert flaw(tame, newest) is None


# Checkpoints, audits, parameters


def checkpoint() -> Checkpoint:
    zeros = np.zeros(17, np.float32)
    records = {split: LAYOUT.empty(split) for split in SPLITS}
    proposal = {"step": 1, "seconds": 0.0, "values": {}}
    return Checkpoint(3, 5, 0.5, zeros, {"momentum": zeros}, proposal, {"work/x": 1.0}, records)


def content_of(path: Path, save: Callable[[Path], object]) -> bytes:
    save(path)
    return path.read_bytes()


@fuzzed
@given(draws=st.data())
def test_checkpoints_audits_and_parameters_are_read_whole_or_refused(tmp_path: Path, draws: st.DataObject) -> None:
    audit = Audit(7, 0.5, np.zeros(17, np.float32), np.ones(23), np.zeros(23, np.float32), math.inf)
    model = mlp(4, [3], 2)
    path = tmp_path / "step-00000007.npz"
    savers: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
        "checkpoint": (lambda p: save_checkpoint(p, checkpoint()), load_checkpoint),
        "audit": (lambda p: save_audit(p.parent, audit), load_audit),
        "parameters": (lambda p: save_parameters(p, model), lambda p: load_parameters(p, model)),
    }
    save, load = savers[draws.draw(st.sampled_from(sorted(savers)))]
    path.write_bytes(draws.draw(spoils(content_of(path, save))))
    found = reads(lambda: load(path), RunError)
    if isinstance(found, Checkpoint):
        assert np.isfinite(found.parameters).all()
        assert all(vector.shape == found.parameters.shape for vector in found.optimizer.values())


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_a_checkpoint_that_announces_more_than_it_holds_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("parameters.npy", bytes(2**26))
    path.write_bytes(bomb.getvalue())
    with pytest.raises(RunError, match="compressed"):
        load_checkpoint(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("parameters.npy", header.getvalue())
    with pytest.raises(RunError, match="announces"):
        load_checkpoint(path)


def test_no_pickle_is_ever_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pytest.fail, ("a pickle was executed",))

    trapped = np.empty(1, object)
    trapped[0] = Trap()
    path = tmp_path / "trap.npz"
    path.write_bytes(npz(images=trapped, labels=trapped, step=trapped, weights=trapped))
    for load in (load_checkpoint, load_audit):
        with pytest.raises(RunError, match="damaged"):
            load(path)
    with pytest.raises(DataError, match="Python objects"):
        user.dataset(path, 0, silent)
    with pytest.raises(DataError):
        CIFAR10.python_batch(pickle.dumps({"data": Trap(), "labels": [1]}, protocol=2), "a batch")


# Datasets


@pytest.mark.parametrize("name", ["meta.json", "train-images.npy", "train-labels.npy", "mean.npy", "std.npy"])
@fuzzed
@given(draws=st.data())
def test_prepared_data_is_read_whole_or_refused(
    data: prepared.Prepared, tmp_path: Path, name: str, draws: st.DataObject
) -> None:
    source = Path(str(data.splits["train"].inputs.filename)).parent  # type: ignore[attr-defined]
    place = tmp_path / "patterns"
    place.mkdir(exist_ok=True)
    for file in source.iterdir():
        if not (place / file.name).exists():
            (place / file.name).symlink_to(file)
    (place / name).unlink()
    (place / name).write_bytes(draws.draw(spoils((source / name).read_bytes())))
    found = reads(lambda: prepared.load(place), DataError)
    if found is not None:
        assert all(len(split.inputs) == len(split.targets) for split in found.splits.values())
        assert found.splits["train"].targets.max() < found.classes
        assert np.isfinite(found.mean).all()


def mat(compressed: bool) -> bytes:
    scipy_io = pytest.importorskip("scipy.io")
    file = io.BytesIO()
    images = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(32, 32, 3, 2)
    scipy_io.savemat(file, {"X": images, "y": np.array([[1], [10]], np.uint8)}, do_compression=compressed)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [True, False])
@fuzzed
@given(draws=st.data())
def test_mat_files_are_read_whole_or_refused(tmp_path: Path, compressed: bool, draws: st.DataObject) -> None:
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(draws.draw(spoils(mat(compressed))))
    reads(lambda: [list(variable.blocks()) for variable in mat5.variables(path).values()], DataError)
    blocks = reads(lambda: list(svhn.part(path).blocks), DataError)
    if blocks is not None:
        assert all(images.shape == (len(labels), 3072) and labels.max() < 10 for images, labels in blocks)


@fuzzed
@given(draws=st.data())
def test_idx_files_are_read_whole_or_refused(tmp_path: Path, draws: st.DataObject) -> None:
    images = struct.pack(">IIII", 0x803, 2, 28, 28) + bytes(2 * 784)
    labels = struct.pack(">II", 0x801, 2) + bytes([3, 4])
    (tmp_path / "images").write_bytes(draws.draw(st.just(images) | spoils(images)))
    (tmp_path / "labels").write_bytes(draws.draw(st.just(labels) | spoils(labels)))
    blocks = reads(lambda: list(mnist.part(tmp_path / "images", tmp_path / "labels").blocks), DataError)
    if blocks is not None:
        assert all(pixels.shape == (len(digits), 784) for pixels, digits in blocks)


@fuzzed
@given(draws=st.data())
def test_cifar_batches_are_read_whole_or_refused(draws: st.DataObject) -> None:
    batch = pickle.dumps({"data": [1, 2], "labels": [1], "x": ("y", {"z": None})}, protocol=2)
    content = draws.draw(spoils(batch))
    for read in (CIFAR10.python_batch, CIFAR10.binary_batch, CIFAR100.python_batch, CIFAR100.binary_batch):
        reads(lambda read=read: read(content, "a batch"), DataError)  # type: ignore[misc]


@fuzzed
@given(draws=st.data())
def test_peoples_labels_pictures_and_shapes_are_read_whole_or_refused(tmp_path: Path, draws: st.DataObject) -> None:
    labels, png = torchs({"aggre_label": np.arange(10)}), io.BytesIO()
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(png, "PNG")
    path = tmp_path / "a_file"
    path.write_bytes(draws.draw(spoils(labels)))
    reads(lambda: cifar10n.labels_of(path, "aggre_label"), DataError)
    path.write_bytes(draws.draw(spoils(png.getvalue())))
    reads(lambda: image.picture(path), DataError)
    shape = draws.draw(spoils(b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"))
    with contextlib.suppress(ValueError, IndexError):
        clouds.mesh_of(shape)


@fuzzed
@given(draws=st.data())
def test_users_own_files_are_read_whole_or_refused(tmp_path: Path, draws: st.DataObject) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(draws.draw(spoils(npz(images=np.zeros((4, 2, 2), np.uint8), labels=np.array([0, 1, 2, 1])))))

    def read() -> object:
        found = user.dataset(path, 0, silent)
        return [list(part.blocks) for part in (found.train, found.test)]

    reads(read, DataError)


# Configurations


@fuzzed
@given(draws=st.data())
def test_toml_is_resolved_or_refused(tmp_path: Path, draws: st.DataObject) -> None:
    path = tmp_path / "experiment.toml"
    known = as_toml(resolve({}, "test")).encode()
    path.write_bytes(draws.draw(spoils(known)))
    values = reads(lambda: read_toml(path), ConfigError)
    if values is not None:
        config = reads(lambda: resolve(values, "fuzz"), ConfigError)
        assert config is None or resolve(tomllib.loads(as_toml(config)), "again") == config
    reads(lambda: experiment.read(path), ConfigError)


@fuzzed
@given(
    section=st.sampled_from(sorted(Config.model_fields)),
    key=st.sampled_from(["name", "count", "hidden", "url", "listen", "seed", "steps", "smoothing", "dir", "x"]),
    value=anything,
)
def test_any_value_of_any_key_is_resolved_or_refused(section: str, key: str, value: Any) -> None:
    for values in ({section: value}, {section: {key: value}}):
        config = reads(lambda values=values: resolve(values, "fuzz"), ConfigError)  # type: ignore[misc]
        assert config is None or resolve(tomllib.loads(as_toml(config)), "again").hash() == config.hash()


@fuzzed
@given(setting=st.text(max_size=40))
def test_any_assignment_is_parsed_or_refused(setting: str) -> None:
    reads(lambda: assignments([setting]), ConfigError)
    reads(lambda: assignments([f"data.dir={setting}"]), ConfigError)


@pytest.mark.parametrize("name", ["../x", "/etc", "a/b", "..", ".", "", "a\nb", "a\0b", "~", "-rf", "x" * 101])
def test_no_name_leads_out_of_the_results(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        resolve({"name": name}, "test")


@pytest.mark.parametrize("name", ["../x", "a/b", ".", "a\nb", "", 7])
@pytest.mark.parametrize("kind", ["settings", "methods"])
def test_no_name_of_a_setting_or_method_leads_out_of_the_results(tmp_path: Path, kind: str, name: object) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text(f"[[{kind}]]\nname = {json.dumps(name)}\n")
    with pytest.raises(ConfigError, match=r"needs a `name`"):
        experiment.read(path)


def test_nothing_of_toml_is_too_deep_or_too_long(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    for text in ("a = " + "[" * 50_000, "a = " + "9" * 10_000, "#" * 2**21):
        path.write_text(text)
        with pytest.raises(ConfigError):
            read_toml(path)


@fuzzed
@given(secret=st.text(st.characters(codec="ascii", exclude_characters=" *'\"&", min_codepoint=33), min_size=4))
def test_no_password_survives_in_a_text(secret: str) -> None:
    for url in (f"redis://:{secret}@host:1/0", f"rediss://user:{secret}@host", f"unix://u:{secret}@/a/path"):
        assert secret not in without_password(f"issgd train --database={url} more").replace("://***@", "")
    if "&" not in secret:
        assert f"password={secret}" not in without_password(f"redis://host?x=1&password={secret}&y=2")


# Traces and manifests


@fuzzed
@given(draws=st.data())
def test_traces_and_events_are_read_whole_or_refused(tmp_path: Path, draws: st.DataObject) -> None:
    path = tmp_path / "trace.csv"
    trace = b"step,seconds,quantity,value\n0,0.5,loss/train,1.25\n32,1.5,audit/loss/train,nan\n"
    events = b"actor,start,end,event,version\nmaster,0.5,1.0,train,3\n"
    for content, read, drop, fields in (
        (trace, traces.read, lambda: cutting.drop_from(path, 10), Row._fields),
        (events, traces.read_events, lambda: cutting.drop_events_from(path, 0.7), Event._fields),
    ):
        spoiled = draws.draw(spoils(content))
        path.write_bytes(spoiled)
        table = reads(lambda read=read: read(path), RunError)  # type: ignore[misc]
        if table is not None:
            assert tuple(table.columns) == fields
            assert not table.drop(columns="value", errors="ignore").isna().any(axis=None)
        if fields == Row._fields:
            reads(lambda: traces.steps(path), RunError)
        reads(drop, RunError)
        path.write_bytes(spoiled)
        ends = draws.draw(st.sampled_from([(), traces.BLOCK_ENDS]))
        reads(lambda fields=fields, ends=ends: TraceWriter(path, fields, ends).close(), RunError)  # type: ignore[misc]
        assert path.read_bytes() in (b",".join(map(str.encode, fields)) + b"\n", spoiled[: path.stat().st_size])


@fuzzed
@given(draws=st.data())
def test_manifests_are_read_whole_or_refused(tmp_path: Path, draws: st.DataObject) -> None:
    folder = RunFolder(tmp_path)
    known = b'{"state": "failed", "failure": {"actor": "master", "reason": "x"}, "dataset": {}, "run_name": "a"}'
    folder.manifest.write_bytes(draws.draw(spoils(known) | anything.map(lambda value: json.dumps(value).encode())))
    found = reads(folder.read_manifest, RunError)
    if found is not None:
        assert found["state"] in ("running", "finished", "failed", "interrupted")
        assert isinstance(found.get("dataset") or {}, dict)

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from byol.bundle import load_backbone
from byol.data.images import TensorImages
from byol.data.source import Source
from byol.errors import UserError
from byol.evaluation import embedding, target
from byol.evaluation.embedding import embed
from byol.rundir import RunDirectory
from byol.types import Features

MakeRun = Callable[..., RunDirectory]
MakeNet = Callable[..., nn.Module]


@pytest.fixture
def expected(make_run: MakeRun, make_net: MakeNet, digits: Source) -> tuple[RunDirectory, torch.Tensor]:
    """A run and the vectors of its test split, one image at a time."""
    run = make_run()
    backbone, test = load_backbone(run.path, make_net()), digits.test
    assert backbone.preprocess is not None
    assert test is not None
    with torch.no_grad():
        vectors = [backbone(backbone.preprocess(test[index])[None]) for index in range(len(test))]
    return run, torch.cat(vectors)


def test_each_format(
    expected: tuple[RunDirectory, torch.Tensor], make_net: MakeNet, digits: Source, tmp_path: Path
) -> None:
    run, vectors = expected
    files = {
        suffix: embed(run.path, split="test", out=tmp_path / f"v{suffix}", net=make_net(), device="cpu")
        for suffix in (".parquet", ".npy", ".safetensors")
    }
    assert digits.test is not None
    table = pq.read_table(files[".parquet"])
    assert table.schema.names == ["id", "label", "vector"]
    assert table.schema.field("vector").type == pa.list_(pa.float32(), vectors.shape[1])
    assert table["id"].to_pylist() == list(digits.test.keys)
    assert table["label"].to_pylist() == digits.test.labels.tolist()
    assert len({file.stat().st_mode for file in files.values()}) == 1
    tensors = load_file(files[".safetensors"])
    assert torch.equal(tensors["labels"], digits.test.labels)
    for found in (np.array(table["vector"].to_pylist()), np.load(files[".npy"]), tensors["vectors"].numpy()):
        np.testing.assert_allclose(found, vectors.numpy(), atol=1e-5, rtol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "v.npy", "v.parquet", "v.safetensors"]


def test_all_splits_with_some_labels(
    make_run: MakeRun, make_net: MakeNet, digits: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = TensorImages(torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    monkeypatch.setattr(target, "open_source", lambda *a, **k: replace(digits, unlabeled=extra))
    run = make_run()
    table = pq.read_table(
        embed(run.path, split="all", out=tmp_path / "v.parquet", net=make_net(), device="cpu")
    )
    assert table.num_rows == len(set(table["id"].to_pylist())) == 1297 + 500 + 3
    assert table["id"].to_pylist()[-1] == "unlabeled/2"
    assert table["label"].null_count == 3
    only = pq.read_table(
        embed(run.path, split="unlabeled", out=tmp_path / "u.parquet", net=make_net(), device="cpu")
    )
    assert only.schema.names == ["id", "vector"]


def test_refusals_leave_the_older_file(make_run: MakeRun, make_net: MakeNet, tmp_path: Path) -> None:
    run, file = make_run(), tmp_path / "v.npy"
    file.write_text("older")
    for settings, message in [
        ({"split": "unlabeled"}, "no split 'unlabeled'; it has train, test"),
        ({"split": "tst"}, "Did you mean 'test'"),
        ({"out": tmp_path / "v.csv"}, r"\.parquet, \.npy, \.safetensors"),
        ({"data": "digit"}, "Did you mean 'digits'"),
    ]:
        with pytest.raises(UserError, match=message):
            embed(run.path, **{"out": file, "net": make_net(), "device": "cpu", **settings})
    assert file.read_text() == "older"


def test_a_failed_write_leaves_the_older_file_alone(
    make_run: MakeRun, make_net: MakeNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "v.npy"
    file.write_text("older")

    def fail(path: Path, features: Features) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(embedding.WRITERS, ".npy", fail)
    with pytest.raises(UserError, match="No space left"):
        embed(make_run().path, out=file, net=make_net(), device="cpu")
    assert file.read_text() == "older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "v.npy"]


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_unreadable_images_are_left_out_where_that_is_asked_for(
    split: str,
    make_run: MakeRun,
    make_net: MakeNet,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for part in ("train", "test"):
        shutil.copytree(photographs, tmp_path / "data" / part)
        (tmp_path / "data" / part / "cats" / "00.png").write_bytes(b"no picture")  # the first of all
    run, file = make_run().path, tmp_path / "v.parquet"
    settings = {"data": f"folder:{tmp_path / 'data'}", "split": split, "out": file, "device": "cpu"}
    with pytest.raises(UserError, match=r"cannot read image 't.*/cats/00\.png': .*embed leave such"):
        embed(run, net=make_net(), **settings)
    names = pq.read_table(embed(run, net=make_net(), on_error="skip", **settings))["id"].to_pylist()
    assert len(names) == (48 if split == "all" else 24)
    assert not any(name.endswith("cats/00.png") for name in names)
    told = capsys.readouterr().err
    assert "left out what cannot be read: train/cats/00.png, test/cats/00.png\n" in told
    assert "left alone" not in told


def test_files_of_other_kinds_are_told_of(
    make_run: MakeRun,
    make_net: MakeNet,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(photographs, tmp_path / "data")
    (tmp_path / "data" / "cats" / "film.mp4").write_bytes(b"")
    (tmp_path / "data" / "cats" / "raw.heic").write_bytes(b"")
    settings = {"data": f"folder:{tmp_path / 'data'}", "out": tmp_path / "v.parquet", "device": "cpu"}
    embed(make_run().path, net=make_net(), split="train", **settings)
    told = capsys.readouterr().err
    assert "left alone 1 of kinds that are not read (.heic): convert them to jpg or png\n" in told

"""A corpus as vectors on disk: made once, gone on with, and what was changed is refused."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from freemvmt.cli import main
from freemvmt.data.documents import Document
from freemvmt.errors import UserError
from freemvmt.export import vectors as encoding
from freemvmt.export.vectors import encode, read_vectors
from freemvmt.model import TwoTowersModel

from bundles import write_corpus
from forked import Forks, alive
from refusals import refusal


@pytest.fixture(scope="module")
def file(corpus: dict[str, Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", corpus.values())


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts were encoded, shard by shard."""
    seen: list[int] = []
    made = encoding.vectors_of
    monkeypatch.setattr(
        encoding, "vectors_of", lambda model, texts, side: (seen.append(len(texts)), made(model, texts, side))[1]
    )
    return seen


@pytest.mark.parametrize("stored", ["fp32", "fp16"])
@pytest.mark.parametrize("side", ["documents", "queries"])
def test_the_shards_hold_the_vectors_of_the_model(
    stored: encoding.Stored,
    side: encoding.Side,
    tiny_model: TwoTowersModel,
    corpus: dict[str, Document],
    file: Path,
    tmp_path: Path,
) -> None:
    manifest = encode(tiny_model, str(file), tmp_path / "vectors", side=side, stored=stored, shard=400)
    assert [shard["documents"] for shard in manifest["shards"]] == [400, 400, 300]
    parts = list(read_vectors(tmp_path / "vectors"))
    assert [name for names, _ in parts for name in names] == list(corpus)
    found = np.concatenate([vectors for _, vectors in parts])
    texts = [document.content for document in corpus.values()]
    made = (tiny_model.encode_documents if side == "documents" else tiny_model.encode_queries)(texts).numpy()
    assert np.array_equal(found, made.astype(np.float16).astype(np.float32) if stored == "fp16" else made)
    plain = pq.read_table(tmp_path / "vectors")  # as another engine reads the folder
    assert plain.column_names == ["id", "vector"]
    assert plain.num_rows == len(corpus)


def test_what_is_done_is_not_done_again(
    tiny_model: TwoTowersModel, corpus: dict[str, Document], file: Path, tmp_path: Path, encoded: list[int]
) -> None:
    output = tmp_path / "vectors"
    first = encode(tiny_model, str(file), output, shard=400)
    assert encoded == [400, 400, 300]
    times = {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")}
    assert encode(tiny_model, str(file), output, shard=400) == first
    assert {path.name: path.stat().st_mtime_ns for path in output.glob("*.parquet")} == times
    encoded.clear()
    (output / "part-00001.parquet").write_bytes((output / "part-00000.parquet").read_bytes())  # another's
    cut = output / "part-00002.parquet"
    cut.write_bytes(cut.read_bytes()[:-1])
    assert encode(tiny_model, str(file), output, shard=400) == first
    assert encoded == [400, 300]
    encoded.clear()
    documents = list(corpus.values())
    longer = write_corpus(tmp_path / "longer.jsonl", [*documents, Document("more", "tower")])
    assert encode(tiny_model, str(longer), output, shard=400)["documents"] == len(corpus) + 1
    assert encoded == [301]  # the end alone
    shorter = write_corpus(tmp_path / "shorter.jsonl", documents[:400])
    assert encode(tiny_model, str(shorter), output, shard=400)["documents"] == 400
    assert sorted(path.name for path in output.iterdir()) == ["_manifest.json", "part-00000.parquet"]
    encoded.clear()
    encode(tiny_model, str(shorter), output, shard=400, stored="fp16")
    encode(tiny_model, str(shorter), output, shard=400, stored="fp16", side="queries")
    assert encoded == [400, 400]


def test_a_flipped_byte_is_made_anew_or_refused(tiny_model: TwoTowersModel, file: Path, tmp_path: Path) -> None:
    output = tmp_path / "vectors"
    encode(tiny_model, str(file), output, shard=600)
    path = output / "part-00001.parquet"
    sound = path.read_bytes()
    for place in range(0, len(sound), len(sound) // 40):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 16]) + sound[place + 1 :])
        with pytest.raises(UserError, match="encode the corpus again"):
            list(read_vectors(output))
        encode(tiny_model, str(file), output, shard=600)
        assert sum(len(names) for names, _ in read_vectors(output)) == 1100


def test_a_killed_command_goes_on(children: Forks, tiny_model: TwoTowersModel, file: Path, tmp_path: Path) -> None:
    tiny_model.save(tmp_path / "model")
    words = ["encode", str(tmp_path / "model"), str(file), "--shard", "50", "--output"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    output = tmp_path / "stopped"
    child = children.start(command=[*words, str(output)])
    while alive(child) and not list(output.glob("part-0000[3-9].parquet")):
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    assert children.rest() == []
    for part in output.glob(".*.part"):
        os.utime(part, (0, 0))
    assert main([*words, str(output)]) == 0
    for path in (tmp_path / "whole").iterdir():
        assert (output / path.name).read_bytes() == path.read_bytes()
    assert len(list(output.iterdir())) == len(list((tmp_path / "whole").iterdir()))


def test_bad_input_is_one_line(
    tiny_model: TwoTowersModel, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_model.save(tmp_path / "model")
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "monday.txt").write_text("dear diary")
    twice = write_corpus(tmp_path / "twice.jsonl", [Document("a", "b"), Document("a", "c")])
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    for words, said in (
        ([file, "--output", tmp_path / "diary"], "holds something that is not a shard (monday.txt)"),
        ([file, "--output", twice], "is a file; name another folder"),
        ([file, "--output", tmp_path / "new", "--shard", "0"], "--shard is 0; give 1 or more"),
        ([tmp_path / "none.jsonl", "--output", tmp_path / "new"], "there is no corpus"),
        ([twice, "--output", tmp_path / "new"], "line 2: the document 'a' stands twice, first at line 1"),
        ([empty, "--output", tmp_path / "new"], "holds no document"),
    ):
        assert said in refusal(capsys, tmp_path, "encode", tmp_path / "model", *words)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["two_towers"] == 3

"""Bundles and vectors whose writing is cut off."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from power_place import ADDED, LATER, NEW, OLD, Documents, Task, Wrong, must, same, tried

from freemvmt.errors import UserError
from freemvmt.export.vectors import read_vectors
from freemvmt.search.retriever import Retriever

_DELETED = ("d2", "a1")


class Index(Task):
    """`index` in the place of another bundle, and where there is none."""

    def start(self) -> None:
        shutil.copytree(self.inputs / "bundle", self.folder / "bundle")

    def act(self) -> None:
        self._index("new", "bundle")
        self.done("again")
        self._index("old", "deep/bundle")
        self.done("fresh")

    def _index(self, corpus: str, output: str) -> None:
        must("index", self.inputs / "model", self.inputs / f"{corpus}.jsonl", "--output", self.folder / output)

    def judge(self, said: Sequence[str]) -> None:
        same(_bundle(self.folder / "bundle"), [NEW] if said else [OLD, NEW], "the bundle before, or half of it")
        fresh = _bundle(self.folder / "deep" / "bundle")
        if len(said) > 1 or not isinstance(fresh, UserError):
            same(fresh, [OLD], "the new bundle")
        if not self.goes_on():
            return
        for corpus, output in (("new", "bundle"), ("old", "deep/bundle")):
            self._index(corpus, output)
        same(_bundle(self.folder / "deep" / "bundle"), [OLD], "indexed again")
        left = sorted(path.name for path in (self.folder, self.folder / "deep") for path in path.iterdir())
        same(left, [["bundle", "bundle", "deep"]], "left beside the bundles")


class Change(Task):
    """`add` and `delete`, and documents that take the place of others."""

    def start(self) -> None:
        shutil.copytree(self.inputs / "bundle", self.folder / "bundle")

    def act(self) -> None:
        bundle = self.folder / "bundle"
        must("add", bundle, self.inputs / "added.jsonl")
        self.done("added")
        must("delete", bundle, *_DELETED)
        self.done("deleted")
        must("add", bundle, self.inputs / "added.jsonl")
        self.done("added")

    def judge(self, said: Sequence[str]) -> None:
        added = {**OLD, **ADDED}
        deleted = {id: text for id, text in added.items() if id not in _DELETED}
        there = _bundle(self.folder / "bundle")
        same(there, [OLD, added, deleted, {**deleted, **ADDED}][len(said) : len(said) + 2], "a change is lost")
        must("add", self.folder / "bundle", self.inputs / "later.jsonl")
        assert isinstance(there, dict)
        same(_bundle(self.folder / "bundle"), [{**there, **LATER}], "a change that followed")


class Encode(Task):
    """`encode` into an empty place, and again with another corpus."""

    def act(self) -> None:
        for corpus in ("old", "new"):
            self._encode(corpus)
            self.done(corpus)

    def _encode(self, corpus: str) -> None:
        output = self.folder / "deep" / "vectors"
        must("encode", self.inputs / "model", self.inputs / f"{corpus}.jsonl", "--output", output, "--shard", "3")

    def judge(self, said: Sequence[str]) -> None:
        there = tried(self._ids)
        if len(said) == 2 or not isinstance(there, UserError):
            same(there, [[*OLD], [*NEW]][max(0, len(said) - 1) :], "vectors")
        if self.goes_on():
            self._encode("new")
            same(self._ids(), [[*NEW]], "encoded again")

    def _ids(self) -> list[str]:
        return [id for ids, _ in read_vectors(self.folder / "deep" / "vectors") for id in ids]


def _bundle(path: Path) -> Documents | UserError:
    """The documents of a bundle, and whether a search finds them all by words and by vectors."""

    def read() -> Documents:
        retriever = Retriever.load(path)
        try:
            hits = {method: retriever.search("tower", 50, method) for method in ("bm25", "dense")}
            found = {method: {hit.id: hit.text for hit in one} for method, one in hits.items()}
            if found["bm25"] != found["dense"] or len(found["dense"]) != len(retriever):
                raise Wrong(f"the bundle disagrees with itself: {found}, {len(retriever)} documents")
            return found["dense"]
        finally:
            retriever.close()

    return tried(read)

"""The start of a server: what it does before it is ready, and what it leaves for later."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from freemvmt.search.retriever import Retriever
from freemvmt.server.api.service import Service
from freemvmt.server.settings import ServeSettings

from bundles import MakeBundle


def test_a_server_has_done_all_that_a_first_request_asks_for(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: set[str] = set()
    for name in ("search", "explain", "values"):
        original = getattr(Retriever, name)

        def noted(*arguments: object, _original=original, _name=name, **settings: object) -> object:  # type: ignore[no-untyped-def]
            called.add(f"{_name} {settings.get('method', '')}".strip())
            return _original(*arguments, **settings)

        monkeypatch.setattr(Retriever, name, noted)
    with contextlib.closing(Retriever.load(make_bundle(tmp_path / "bundle"))) as retriever:
        service = Service(retriever, ServeSettings())
        with contextlib.closing(service):
            service.prepare()
    assert called >= {"search dense", "search bm25", "search hybrid", "explain", "values"}


def test_fastapi_is_imported_for_the_description_only(bundle: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from freemvmt.search.retriever import Retriever
from freemvmt.server.settings import ServeSettings
from freemvmt.server.uvicorn_server import make_app
app = make_app(Retriever.load(Path({str(bundle)!r})), ServeSettings())
assert not {{"fastapi", "torch", "transformers", "pyarrow", "pandas"}} & set(sys.modules)
assert app.openapi()["info"]["title"] == "two-towers"
assert "fastapi" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)

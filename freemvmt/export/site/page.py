"""The page of a site: the server's page, with modules that search in the browser in place of the server."""

from pathlib import Path

import freemvmt
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.storage.hidden_files import is_not_ours

SERVED = Path(freemvmt.__file__).parent / "web"
OWN = SERVED / "site"
SHARED = ("app.js", "hits.js", "style.css")  # files of the server's page that are used unchanged
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")  # of onnxruntime-web

_POLICY = (
    "default-src 'none'; script-src 'self'{wasm}; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'"
)
_LOADING_NOTE = (
    '<p class="unopened">Loading. If this line stays, the page was opened as a file, from which browsers load nothing. '
    "Open it from a web server: run <code>python -m http.server</code> in its folder and go to "
    "<code>http://localhost:8000</code>.</p>"
)


def page_files(model: TwoTowersModel, runtime: Path | None) -> dict[str, bytes]:
    """The files of the page by their path, with those of onnxruntime-web from the folder ``runtime``, if given.

    Raises ``UserError`` when files are missing in ``runtime``, or when it is given but the towers are not recurrent.
    """
    files = {f"page/{name}": (SERVED / name).read_bytes() for name in SHARED}
    files |= {f"page/{file.name}": file.read_bytes() for file in sorted(OWN.iterdir()) if not is_not_ours(file.name)}
    if runtime is None:
        del files["page/onnx.js"]
    else:
        files |= _runtime_files(model, runtime)
    html = (SERVED / "index.html").read_text(encoding="utf-8")
    wasm = "" if runtime is None else " 'wasm-unsafe-eval'"
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY.format(wasm=wasm)}">'
    for pattern, replacement in (
        ('<meta name="referrer"', f'{policy}\n  <meta name="referrer"'),
        ('<script type="module"', '<link rel="stylesheet" href="page/site.css">\n  <script type="module"'),
        ('tabindex="-1"></section>', f'tabindex="-1">{_LOADING_NOTE}</section>'),
        (' The same search answers at POST /search; see <a href="docs">the API</a>.', " Nothing is sent anywhere."),
    ):  # fmt: skip
        assert html.count(pattern) == 1, pattern
        html = html.replace(pattern, replacement)
    return {"index.html": html.encode(), **files}


def _runtime_files(model: TwoTowersModel, runtime: Path) -> dict[str, bytes]:
    if model.config.kind_of("query") != "recurrent":
        raise UserError("--onnx-web is for recurrent towers, and these are averages; leave it out")
    if missing := [name for name in RUNTIME if not (runtime / name).is_file()]:
        raise UserError(f"{runtime} has no {missing[0]}; give the folder dist of the npm package onnxruntime-web")
    return {f"page/runtime/{name}": (runtime / name).read_bytes() for name in RUNTIME}

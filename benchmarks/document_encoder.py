"""How fast a transformer encodes documents on a CPU: our tower beside sentence-transformers, fastembed, ONNX Runtime.

    uv run python benchmarks/document_encoder.py --data FOLDER

The same weights (all-MiniLM-L6-v2) and the same passages of `msmarco-dl19` in FOLDER, from text to vector, the ways in
turns. Each way says how far its vectors are from those of sentence-transformers. The roofline is what the products of
the model alone would take: 2 x 10.6 million operations a token, at the speed of one large product in the same process.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
import transformers
from minilm import export_outputs
from numpy.typing import NDArray

from freemvmt.config import BASE_MODEL, ModelConfig, TrainConfig
from freemvmt.data.load import load_collection
from freemvmt.export.onnx import export_onnx
from freemvmt.model import TwoTowersModel
from freemvmt.search.onnx_encoder import OnnxEncoder
from freemvmt.storage import hub

Encode = Callable[[Sequence[str]], NDArray[Any]]
FASTEMBED = "fastembed==0.9.1"
LENGTH = 256  # tokens of a passage that sentence-transformers reads
OPERATIONS = 2 * 10.6e6  # a token, in the products of the six layers


def main() -> int:
    """Measure, print, write results/document_encoder.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--passages", type=int, default=1024)
    arguments.add_argument("--turns", type=int, default=5)
    given = arguments.parse_args()
    record.require_quiet()
    documents = load_collection(str(given.data / "msmarco-dl19"), "test", TrainConfig()).documents
    step = len(documents) // given.passages
    passages = documents[::step][: given.passages]
    model = TwoTowersModel(ModelConfig(tower="transformer"))
    with tempfile.TemporaryDirectory() as work, _fastembed(Path(work, "fastembed")) as fastembed:
        ways = _ways(model, fastembed, Path(work))
        expected = ways["sentence-transformers"](passages)
        figures: dict[str, Any] = {name: {"rates": []} for name in ways}
        for _ in range(given.turns):
            for name, encode in ways.items():
                started = time.perf_counter()
                vectors = encode(passages)
                figures[name]["rates"].append(round(len(passages) / (time.perf_counter() - started), 1))
                figures[name]["least_cosine"] = round(float((vectors * expected).sum(1).min()), 6)
    peer = figures["sentence-transformers"]["rates"]
    for figure in figures.values():
        ratios = [own / other for own, other in zip(figure["rates"], peer, strict=True)]
        figure["passages_per_second"] = float(np.median(figure["rates"]))
        figure["ratio"] = round(float(np.median(ratios)), 2)
        figure["range"] = [round(min(ratios), 2), round(max(ratios), 2)]
    tokens = float(model.tokenizer.encode(passages).lengths.mean()) + 2
    flops = _flops()
    roofline = {
        "tokens_a_passage": round(tokens, 1), "gflops": round(flops / 1e9, 1),
        "passages_per_second": round(flops / (OPERATIONS * tokens), 1),
    }  # fmt: skip
    for name, figure in figures.items():
        sys.stdout.write(f"{name:<24} {figure}\n")
    sys.stdout.write(f"roofline {roofline}\n")
    result = {"ways": figures, "roofline": roofline}
    protocol = (
        f"{len(passages)} passages of msmarco-dl19 from text to vector, {given.turns} turns, the ways in turns; "
        f"{FASTEMBED.replace('==', ' ')} in a process of its own, which takes texts and returns vectors"
    )
    path = record.write("document_encoder", protocol, [0], result, ("sentence-transformers", "onnxruntime"))
    sys.stdout.write(f"wrote {path}\n")
    return 0


def _ways(model: TwoTowersModel, fastembed: Encode, work: Path) -> dict[str, Encode]:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(hub.encoder_folder(BASE_MODEL, "--base")), device="cpu")
    export_onnx(model, work / "fp32")
    quantize_dynamic(work / "fp32" / "model.onnx", work / "int8.onnx", weight_type=QuantType.QInt8)
    return {
        "sentence-transformers": lambda texts: peer.encode(list(texts), show_progress_bar=False),
        "fastembed": fastembed,
        "two-towers, PyTorch": lambda texts: model.encode_documents(texts).numpy(),
        "two-towers, ONNX Runtime": OnnxEncoder(work / "fp32").encode_documents,
        "ONNX Runtime, int8": _int8(model, work),
    }


@contextmanager
def _fastembed(folder: Path) -> Iterator[Encode]:
    """fastembed with the same weights and the same ONNX Runtime; see fastembed_peer.py."""
    shutil.copytree(hub.encoder_folder(BASE_MODEL, "--base"), folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=LENGTH, max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    (folder / "special_tokens_map.json").write_text(json.dumps(tokenizer.special_tokens_map))
    export_outputs(folder / "model.onnx")
    needs = ["--with", FASTEMBED, "--with", f"onnxruntime=={version('onnxruntime')}"]
    line = ["uv", "run", "--quiet", "--no-project", *needs, "--python", sys.executable, "python"]
    line += [str(Path(__file__).with_name("fastembed_peer.py")), str(folder), str(torch.get_num_threads())]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None

        def encode(texts: Sequence[str]) -> NDArray[Any]:
            peer.stdin.write(json.dumps(list(texts)) + "\n")
            peer.stdin.flush()
            if peer.stdout.readline() != "done\n":
                raise SystemExit("fastembed has ended; see above")
            vectors: NDArray[Any] = np.load(folder / "vectors.npy")
            return vectors

        yield encode
        peer.stdin.close()


def _int8(model: TwoTowersModel, work: Path) -> Encode:
    """Weights of a byte a number; the activations are quantised as they come."""
    import onnxruntime

    encoder = OnnxEncoder(work / "fp32")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    encoder._document = onnxruntime.InferenceSession(work / "int8.onnx", options, providers=["CPUExecutionProvider"])
    return encoder.encode_documents


def _flops() -> float:
    """Operations a second of a product as large as those of the model's feed-forward layer."""
    one, other = torch.randn(8192, 384), torch.randn(384, 1536)
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        torch.mm(one, other)
        seconds.append(time.perf_counter() - started)
    return 2 * 8192 * 384 * 1536 / min(seconds)


if __name__ == "__main__":
    sys.exit(main())

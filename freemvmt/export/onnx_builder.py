"""Build an ONNX graph node by node: each call adds a node and returns the name of its output."""

from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from freemvmt.runtime.optional import require

OPSET, IR = 21, 10  # read by onnxruntime since 1.18
Array = NDArray[Any]


class Builder:
    """Builds a graph from ``input_ids`` and ``attention_mask``, (texts, tokens) int64, to the outputs of ``model``."""

    def __init__(self) -> None:
        onnx = require("onnx")
        self._helper, self._numpy = onnx.helper, onnx.numpy_helper
        self.types = onnx.TensorProto
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    @overload
    def __call__(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]: ...

    @overload
    def __call__(self, kind: str, *inputs: str, output: str = ..., **attributes: Any) -> str: ...

    def __call__(
        self, kind: str, *inputs: str, output: str = "", outputs: int | None = None, **attributes: Any
    ) -> str | list[str]:
        """Add a node; return the name of its output, or the names of ``outputs`` outputs."""
        names = [output or f"v{len(self._nodes)}_{number}" for number in range(outputs or 1)]
        self._nodes.append(self._helper.make_node(kind, list(inputs), names, **attributes))
        return names if outputs else names[0]

    def constant(self, value: Array) -> str:
        """A constant with that value."""
        name = f"c{len(self._constants)}"
        self._constants.append(self._numpy.from_array(np.ascontiguousarray(value), name))
        return name

    def weights(self, value: torch.Tensor) -> str:
        """A constant with the value of a tensor."""
        return self.constant(value.detach().cpu().numpy())

    def ints(self, *values: int) -> str:
        """A constant list of int64."""
        return self.constant(np.array(values, np.int64))

    def floats(self, *values: float) -> str:
        """A constant list of float32."""
        return self.constant(np.array(values, np.float32))

    def number(self, value: float) -> str:
        """A constant float32 scalar."""
        return self.constant(np.array(value, np.float32))

    def sru_steps(self, gates: str, hidden: int, lengths: str) -> tuple[str, str]:
        """The steps of an SRU (Lei et al. 2017): (the states of all tokens, the state at each text's last token).

        ``gates`` (tokens, texts, 4 hidden) holds, for each token, f and r before the sigmoid, W x, and the skip input.
        """
        forget, reset, value, skip = self("Split", gates, self.ints(*[hidden] * 4), outputs=4, axis=2)
        forget, reset = self("Sigmoid", forget), self("Sigmoid", reset)
        helper, kind = self._helper, self.types.FLOAT
        one = helper.make_node("Constant", [], ["one"], value=self._numpy.from_array(np.ones((), np.float32)))
        body = helper.make_graph(
            [
                one,
                helper.make_node("Mul", ["f", "before"], ["kept"]),
                helper.make_node("Sub", ["one", "f"], ["rest"]),
                helper.make_node("Mul", ["rest", "x"], ["new"]),
                helper.make_node("Add", ["kept", "new"], ["after"]),
                helper.make_node("Identity", ["after"], ["cell"]),
            ],
            "sru",
            [helper.make_tensor_value_info(name, kind, ["texts", hidden]) for name in ("before", "f", "x")],
            [helper.make_tensor_value_info(name, kind, ["texts", hidden]) for name in ("after", "cell")],
        )
        texts = self("Shape", lengths)
        start = self("ConstantOfShape", self("Concat", texts, self.ints(hidden), axis=0))
        _, cells = self("Scan", start, forget, value, outputs=2, body=body, num_scan_inputs=2)
        difference = self("Sub", self("Tanh", cells), skip)
        states = self("Add", self("Mul", reset, difference), skip)
        # The state at each text's last token; zeros for a text without tokens.
        long_lengths = self("Cast", lengths, to=self.types.INT64)
        last = self("Max", self("Sub", long_lengths, self.ints(1)), self.ints(0))
        text_numbers = self("Range", self.constant(np.array(0)), self("Squeeze", texts), self.constant(np.array(1)))
        indices = self(
            "Concat", self("Unsqueeze", last, self.ints(1)), self("Unsqueeze", text_numbers, self.ints(1)), axis=1
        )
        ends = self("GatherND", states, indices)
        has_tokens = self("Cast", self("Min", long_lengths, self.ints(1)), to=kind)
        return states, self("Mul", ends, self("Unsqueeze", has_tokens, self.ints(1)))

    def model(self, outputs: dict[str, list[str | int]]) -> Any:
        """The complete ONNX model; ``outputs`` are the shapes of its outputs, by name."""
        helper = self._helper
        input_shape = ["texts", "tokens"]
        inputs = [
            helper.make_tensor_value_info(name, self.types.INT64, input_shape)
            for name in ("input_ids", "attention_mask")
        ]
        output_infos = [helper.make_tensor_value_info(name, self.types.FLOAT, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self._nodes, "tower", inputs, output_infos, initializer=self._constants)
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR, producer_name="two-towers")

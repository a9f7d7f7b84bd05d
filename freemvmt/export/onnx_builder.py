"""Writes an ONNX graph node by node: a call adds a node and gives the name of what comes out of it."""

from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from freemvmt.runtime.optional import needed

OPSET, IR = 21, 10  # read by onnxruntime since 1.18
Array = NDArray[Any]


class Builder:
    """A graph from ``input_ids`` and ``attention_mask`` (texts, tokens) int64 to what ``model`` names."""

    def __init__(self) -> None:
        onnx = needed("onnx")
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
        """Add a node; the name of its output, or the names of as many as ``outputs``."""
        names = [output or f"v{len(self._nodes)}_{place}" for place in range(outputs or 1)]
        self._nodes.append(self._helper.make_node(kind, list(inputs), names, **attributes))
        return names if outputs else names[0]

    def constant(self, value: Array) -> str:
        """A constant of that value."""
        name = f"c{len(self._constants)}"
        self._constants.append(self._numpy.from_array(np.ascontiguousarray(value), name))
        return name

    def weights(self, value: torch.Tensor) -> str:
        """A constant of a tensor's value."""
        return self.constant(value.detach().cpu().numpy())

    def ints(self, *values: int) -> str:
        """A constant list of whole numbers."""
        return self.constant(np.array(values, np.int64))

    def floats(self, *values: float) -> str:
        """A constant list of numbers."""
        return self.constant(np.array(values, np.float32))

    def number(self, value: float) -> str:
        """A constant number."""
        return self.constant(np.array(value, np.float32))

    def sru_steps(self, read: str, hidden: int, lengths: str) -> tuple[str, str]:
        """(the states of an SRU, step by step, those at each text's end) from what its gates make of the input.

        ``read`` (tokens, texts, 4 hidden) holds what becomes f and r, and W x and W_x x.
        """
        forget, reset, value, skip = self("Split", read, self.ints(*[hidden] * 4), outputs=4, axis=2)
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
        known = self("Sub", self("Tanh", cells), skip)
        states = self("Add", self("Mul", reset, known), skip)
        # The state at each text's last token; of a text without one, zeros.
        whole = self("Cast", lengths, to=self.types.INT64)
        last = self("Max", self("Sub", whole, self.ints(1)), self.ints(0))
        number = self("Range", self.constant(np.array(0)), self("Squeeze", texts), self.constant(np.array(1)))
        places = self("Concat", self("Unsqueeze", last, self.ints(1)), self("Unsqueeze", number, self.ints(1)), axis=1)
        ends = self("GatherND", states, places)
        some = self("Cast", self("Min", whole, self.ints(1)), to=kind)
        return states, self("Mul", ends, self("Unsqueeze", some, self.ints(1)))

    def model(self, outputs: dict[str, list[str | int]]) -> Any:
        """The whole of it; ``outputs`` are the shapes of what comes out, by name."""
        helper = self._helper
        texts = ["texts", "tokens"]
        inputs = [
            helper.make_tensor_value_info(name, self.types.INT64, texts) for name in ("input_ids", "attention_mask")
        ]
        found = [helper.make_tensor_value_info(name, self.types.FLOAT, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self._nodes, "tower", inputs, found, initializer=self._constants)
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR, producer_name="two-towers")

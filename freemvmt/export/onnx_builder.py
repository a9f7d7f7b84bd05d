"""Build an ONNX graph node by node: each call adds a node and returns the name of its output."""

from typing import Any

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

    def __call__(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        output = output or f"v{len(self._nodes)}"
        self._nodes.append(self._helper.make_node(kind, list(inputs), [output], **attributes))
        return output

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

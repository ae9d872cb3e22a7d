"""One encoder of `network.py` as an ONNX graph, made from its weights.

Inference engines take such a graph, and on a CPU they run it faster than torch. Every intermediate result is
declared with the names of its rows and columns: only then does ONNX Runtime know which of them are equally
large, and fuse the additions, which saves a fifth of its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Tensors = Mapping[str, NDArray[np.float32]]
"""Weights by the names of `network.Encoder.state_dict`, after `network.fuse`."""

OPSET, IR_VERSION = 17, 8
"""As old as the operators allow: any ONNX Runtime that runs with numpy 2 reads them."""

GRAPH_INPUT, GRAPH_OUTPUTS = "plane", ("shallow", "deep")


@dataclass(frozen=True, slots=True)
class _Layer:
    """An intermediate result (1, channels, H / stride, W / stride)."""

    name: str
    channels: int
    stride: int

    @property
    def declared(self) -> ValueInfoProto:
        """Its type and shape."""
        shape: list[str | int | None] = [1, self.channels, f"rows/{self.stride}", f"columns/{self.stride}"]
        return helper.make_tensor_value_info(self.name, TensorProto.FLOAT, shape)


def encoder_graph(tensors: Tensors) -> bytes:
    """Serialise the encoder with these weights.

    Parameters
    ----------
    tensors : Tensors
        Weights by the names of `network.Encoder.state_dict`.

    Returns
    -------
    bytes
        An ONNX model: `plane` (1, 1, H, W), H and W multiples of 16 -> `shallow` (1, 16, H, W) and `deep`
        (1, 32, H / 8, W / 8).
    """
    drawn = _Drawing(tensors)
    plane = _Layer(GRAPH_INPUT, 1, 1)
    levels = [drawn.block(plane, "blocks.0")]
    while f"blocks.{len(levels)}.conv1.weight" in tensors:
        levels.append(drawn.block(drawn.halved(levels[-1]), f"blocks.{len(levels)}"))
    half, quarter, eighth, sixteenth = (
        drawn.convolved(level, f"laterals.{i}") for i, level in enumerate(levels[1:])
    )
    top = drawn.rectified(drawn.summed(drawn.doubled(sixteenth), eighth))
    top = drawn.rectified(drawn.convolved(top, "refine"))
    deep = drawn.convolved(top, "to_deep", as_name=GRAPH_OUTPUTS[1])
    top = drawn.rectified(drawn.summed(drawn.doubled(top), quarter))
    top = drawn.convolved(drawn.rectified(drawn.summed(drawn.doubled(top), half)), "narrow")
    top = drawn.rectified(drawn.summed(drawn.doubled(top), drawn.convolved(levels[0], "finest")))
    shallow = drawn.convolved(top, "smooth", as_name=GRAPH_OUTPUTS[0])
    graph = helper.make_graph(
        drawn.nodes,
        "encoder",
        [plane.declared],
        [shallow.declared, deep.declared],
        drawn.constants,
        value_info=[layer.declared for layer in drawn.layers if layer not in (shallow, deep)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    body: bytes = model.SerializeToString()
    return body


@dataclass(frozen=True, slots=True, eq=False)
class _Drawing:
    """A graph that grows, one operator at a time; each is named after what it makes."""

    tensors: Tensors
    nodes: list[NodeProto] = field(default_factory=list)
    layers: list[_Layer] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def block(self, x: _Layer, name: str) -> _Layer:
        """`network.ResidualBlock`."""
        y = self.rectified(self.convolved(x, f"{name}.conv1"))
        y = self.convolved(y, f"{name}.conv2")
        return self.rectified(self.summed(y, self.convolved(x, f"{name}.shortcut")))

    def convolved(self, x: _Layer, name: str, *, as_name: str | None = None) -> _Layer:
        """A convolution with the weights of that name."""
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        side = weight.shape[-1]
        inputs = [x.name, self._constant(f"{name}.weight", weight), self._constant(f"{name}.bias", bias)]
        made = _Layer(as_name or name, weight.shape[0], x.stride)
        return self._add("Conv", inputs, made, kernel_shape=[side, side], pads=[side // 2] * 4)

    def halved(self, x: _Layer) -> _Layer:
        """`network._halve`. The padding at the end reaches no window, but marks the size as an exact half."""
        half = _Layer(f"{x.name}.halved", x.channels, 2 * x.stride)
        return self._add(
            "AveragePool", [x.name], half, kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 2, 2]
        )

    def doubled(self, x: _Layer) -> _Layer:
        """`network._double`."""
        factors = self._constant(f"{x.name}.factors", np.array([1, 1, 2, 2], np.float32))
        double = _Layer(f"{x.name}.doubled", x.channels, x.stride // 2)
        return self._add(
            "Resize",
            [x.name, "", factors],
            double,
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )

    def summed(self, x: _Layer, y: _Layer) -> _Layer:
        """The sum of two equally large layers."""
        return self._add("Add", [x.name, y.name], _Layer(f"{x.name}+{y.name}", x.channels, x.stride))

    def rectified(self, x: _Layer) -> _Layer:
        """What is negative becomes 0."""
        return self._add("Relu", [x.name], _Layer(f"{x.name}.rectified", x.channels, x.stride))

    def _constant(self, name: str, value: NDArray[np.floating]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def _add(self, operator: str, inputs: list[str], made: _Layer, **attributes: Any) -> _Layer:
        self.nodes.append(helper.make_node(operator, inputs, [made.name], name=made.name, **attributes))
        self.layers.append(made)
        return made

"""Store the weights of an ONNX graph in float16, half the size. Runtimes make float32 of them once, at load."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..errors import InputError

MIN_WEIGHTS = 1024
"""Smaller tensors, biases for the most part, stay float32: they save nothing."""


def store_float16(model: ir.Model) -> None:
    """Replace the float32 weights of a graph, each by a float16 one and a cast.

    Raises InputError for weights above float16's largest number, 65504.
    """
    graph = model.graph
    first = graph[0]
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < MIN_WEIGHTS:
            continue
        with np.errstate(over="ignore"):
            half = tensor.numpy().astype(np.float16)
        if not np.isfinite(half).all():
            what = f"{name} holds numbers above 65504, the largest of float16"
            raise InputError("--weights float16", what, "export float32, the default")
        stored = ir.Value(
            name=f"{name}_float16",
            shape=value.shape,
            type=ir.TensorType(ir.DataType.FLOAT16),
            const_value=ir.tensor(half, name=f"{name}_float16"),
        )
        cast = ir.node("Cast", [stored], attributes={"to": ir.DataType.FLOAT})
        cast.outputs[0].shape, cast.outputs[0].type = value.shape, ir.TensorType(ir.DataType.FLOAT)
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del graph.initializers[name]
        cast.outputs[0].name = name
        graph.register_initializer(stored)
        graph.insert_before(first, cast)

"""Backends of the transformer's forward pass: torch, torch.compile, ONNX Runtime or OpenVINO.

The loaded model is converted in memory, with dynamic shapes; nothing is downloaded or stored. Tokenisation, pooling and
heads outside the transformer stay in torch.
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.errors import ConfigError

CHOICES = ("torch", "compile", "onnx", "openvino")
Run = Callable[[dict[str, Any]], list[Any]]


def swap(model: Any, backend: str, name: str) -> None:
    """Replace the forward pass of a model's transformer by that of a backend, in place.

    Args:
        model: A sentence-transformers model on its device.
        backend: One of `CHOICES`; `torch` leaves the model unchanged.
        name: The model's name in error messages.

    Raises:
        ConfigError: The backend is not installed, or does not support the model, its device or its precision.
    """
    if backend == "torch":
        return
    network = getattr(model[0], "model", None)
    if not isinstance(network, torch.nn.Module) or not hasattr(network, "config"):
        raise ConfigError(f"encoder.backend={backend!r}: {name!r} has no transformer to convert; choose torch")
    if backend == "compile":
        network.forward = torch.compile(network.forward, dynamic=True)
        return
    device = next(network.parameters()).device.type
    if device == "mps" or (backend == "openvino" and device != "cpu"):
        raise ConfigError(
            f"encoder.backend={backend!r} does not run on {device}; choose torch or compile, or device cpu"
        )
    if network.dtype != torch.float32:
        raise ConfigError(f"encoder.backend={backend!r} takes encoder.dtype=float32, not {network.dtype}")
    example = _example(model)
    with torch.inference_mode():
        fields = list(network(**example, return_dict=True).keys())[:1]
    run = {"onnx": _onnx, "openvino": _openvino}[backend](network, example)
    network.forward = _forward(run, list(example), fields[0])


def _example(model: Any) -> dict[str, torch.Tensor]:
    """Return the inputs of the network's forward pass for two texts of different lengths."""
    features = model.preprocess(["a short text", "another text that is longer than the first one"])
    parameters = model[0].model_forward_params
    return {
        key: value.to(model.device)
        for key, value in features.items()
        if torch.is_tensor(value) and (parameters is None or key in parameters)
    }


def _forward(run: Run, inputs: list[str], field: str) -> Callable[..., dict[str, Any]]:
    """Return a forward pass that calls `run` and names its first output `field`."""

    def forward(**features: Any) -> dict[str, Any]:
        if missing := [key for key in inputs if key not in features]:
            raise ConfigError(f"the converted model needs {', '.join(missing)}; choose encoder.backend=torch")
        return {field: run({key: features[key] for key in inputs})[0]}

    return forward


def _onnx(network: torch.nn.Module, example: dict[str, torch.Tensor]) -> Run:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch's exporter imports it
    except ModuleNotFoundError:
        raise ConfigError("encoder.backend=onnx needs packages: pip install 'retrieval-harness[onnx]'") from None
    cuda = next(network.parameters()).is_cuda
    providers = ["CUDAExecutionProvider"] if cuda else ["CPUExecutionProvider"]
    if lacking := set(providers) - set(onnxruntime.get_available_providers()):
        raise ConfigError(
            f"onnxruntime has no {lacking.pop()}: pip install onnxruntime-gpu, or choose encoder.device=cpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about axes and constants that torch leaves out
        path = Path(folder) / "model.onnx"
        _export(network, example, path)
        session = onnxruntime.InferenceSession(str(path), options, providers)
    device = next(network.parameters()).device

    def run(inputs: dict[str, Any]) -> list[Any]:
        outputs = session.run(None, {key: value.cpu().numpy() for key, value in inputs.items()})
        return [torch.from_numpy(array).to(device) for array in outputs]

    return run


def _export(network: torch.nn.Module, example: dict[str, torch.Tensor], path: Path) -> None:
    texts, tokens = torch.export.Dim("texts", min=1, max=1 << 16), torch.export.Dim("tokens", min=1, max=1 << 16)
    shapes = {key: {0: texts, 1: tokens} for key in example}
    torch.onnx.export(
        network,
        (),
        str(path),
        kwargs=example,
        dynamic_shapes=shapes,
        input_names=list(example),
        dynamo=True,
        verbose=False,
    )


def _openvino(network: torch.nn.Module, example: dict[str, torch.Tensor]) -> Run:
    try:
        import openvino
    except ModuleNotFoundError:
        raise ConfigError(
            "encoder.backend=openvino needs a package: pip install 'retrieval-harness[openvino]'"
        ) from None
    core = openvino.Core()
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from the tracer, about branches that are the same for every text
        converted = openvino.convert_model(network, example_input=dict(example))
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(converted, "CPU", settings)

    def run(inputs: dict[str, Any]) -> list[Any]:
        outputs = compiled({key: np.ascontiguousarray(value.numpy()) for key, value in inputs.items()})
        return [torch.from_numpy(outputs[0].copy())]

    return run

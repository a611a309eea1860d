"""What runs a network's forward pass: torch as it is, torch.compile, ONNX Runtime or OpenVINO.

The model is converted in memory from the weights that were loaded, at whatever lengths; nothing is fetched and nothing
is kept. Tokenising, pooling and heads outside the transformer stay as they are.
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
    """Let `backend` run the transformer inside a sentence-transformers model. Raises `ConfigError`."""
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
    """Inputs of two texts of unlike lengths, as the network's own forward pass takes them."""
    features = model.preprocess(["a short text", "another text that is longer than the first one"])
    known = model[0].model_forward_params
    return {
        key: value.to(model.device)
        for key, value in features.items()
        if torch.is_tensor(value) and (known is None or key in known)
    }


def _forward(run: Run, inputs: list[str], field: str) -> Callable[..., dict[str, Any]]:
    """A forward pass that hands its inputs on and gives what the network's first output is called by."""

    def forward(**given: Any) -> dict[str, Any]:
        if missing := [key for key in inputs if key not in given]:
            raise ConfigError(f"the converted model needs {', '.join(missing)}; choose encoder.backend=torch")
        return {field: run({key: given[key] for key in inputs})[0]}

    return forward


def _onnx(network: torch.nn.Module, example: dict[str, torch.Tensor]) -> Run:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # what torch's exporter needs
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
        warnings.simplefilter("ignore")  # torch names axes and constants that it leaves out
        path = Path(folder) / "model.onnx"
        _export(network, example, path)
        session = onnxruntime.InferenceSession(str(path), options, providers)
    device = next(network.parameters()).device

    def run(inputs: dict[str, Any]) -> list[Any]:
        found = session.run(None, {key: value.cpu().numpy() for key, value in inputs.items()})
        return [torch.from_numpy(array).to(device) for array in found]

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
        warnings.simplefilter("ignore")  # the tracer's, of branches that hold for every text
        converted = openvino.convert_model(network, example_input=dict(example))
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(converted, "CPU", settings)

    def run(inputs: dict[str, Any]) -> list[Any]:
        found = compiled({key: np.ascontiguousarray(value.numpy()) for key, value in inputs.items()})
        return [torch.from_numpy(found[0].copy())]

    return run

"""OpenVINO engine: a network and its normalisation, compiled for this processor."""

import functools
import queue
import sys
import warnings
from collections.abc import Callable

import numpy as np

from helpers.files import SuiteError
from helpers.network.preprocessing import create_normalisation

COPIES = 512 * 2**20  # bytes of weights, at most, that a copy for each worker may take


@functools.cache
def _load_core():
    """Return the process's one OpenVINO core, which is never let go.

    Loading its CPU plugin gives the thread a signal stack, which is unmapped with the plugin: let
    go in another thread, or before a newer core, it leaves a stack that the next signal (a child
    that ended, an interrupted cell) dies on.
    """
    # OpenVINO reports its use over the network unless its telemetry package is missing.
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino.Core()


def compile_network(model, data_config: dict, precision: str, workers: int,
                    shape: tuple[int, int, int, int]) -> Callable:
    """Return what computes features on `workers` cores: pixels of `shape` to (batch, features).

    Raises:
        SuiteError: the processor lacks the precision. Whatever an operation stumbles over, if
            OpenVINO does not know it.
    """
    core = _load_core()
    import openvino
    import openvino.properties as properties
    import openvino.properties.hint as hints

    kind, name = {"float32": (openvino.Type.f32, "FP32"), "bf16": (openvino.Type.bf16, "BF16"),
                  "fp16": (openvino.Type.f16, "FP16")}[precision]
    if name not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise SuiteError(f"this machine's processor does not compute in {precision}: set "
                         "`precision: float32`.")
    graph = _convert(model, data_config, shape)
    # A copy of the network for each worker computes in the worker's own thread, which saves
    # handing every batch to another; a large network is shared instead.
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    copies = workers if workers * weights <= COPIES else 1
    options = {properties.inference_num_threads(): workers // copies,
               properties.num_streams(): 0 if copies == workers else workers,
               hints.enable_cpu_pinning(): False,  # decoding threads move, so must these
               hints.inference_precision(): kind}
    compiled = [core.compile_model(graph, "CPU", options) for _ in range(copies)]
    requests = queue.SimpleQueue()
    for worker in range(workers):
        requests.put(compiled[worker % copies].create_infer_request())

    def compute(pixels):
        request = requests.get()
        try:
            request.infer({0: pixels}, share_inputs=True)
            return request.get_output_tensor().data.astype(np.float32)
        finally:
            requests.put(request)

    return compute


def _convert(model, data_config: dict, shape: tuple[int, int, int, int]):
    import openvino
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.normalise = model, create_normalisation(data_config)

        def forward(self, pixels):
            return self.model(self.normalise(pixels))

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # tracing warns of every Python number that it fixes
        # One image is enough to trace, and takes less memory.
        one = torch.zeros(1, *shape[1:], dtype=torch.uint8)
        traced = torch.jit.trace(Network().eval(), one, check_trace=False)
        return openvino.convert_model(traced, input=[(shape, openvino.Type.u8)])

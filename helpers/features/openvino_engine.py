"""OpenVINO engine: a network and its normalisation, compiled for this processor."""

import functools
import queue
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from helpers.files import SuiteError
from helpers.network.preprocessing import create_normalisation

COPIES = 512 * 2**20  # bytes of weights, at most, that a copy for each worker may take
KEPT_EXACT = 2  # convolutions, the first ones, that compute in float32 whatever the others do


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
    if precision != "float32":
        graph = _keep_first_exact(core, graph)
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


def _keep_first_exact(core, graph):
    """Return the graph with its first convolutions marked to stay in float32.

    A first depthwise filter's large weights cancel each other, so their rounding alone does half
    of the harm: with it exact, MobileNetV2's bf16 features are twice as close, for a fiftieth of
    the time. Only OpenVINO's file format lets Python set the mark.
    """
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.xml")
        try:
            openvino.save_model(graph, path, compress_to_fp16=False)
        except (OSError, RuntimeError) as error:
            raise SuiteError(f"cannot write the network to {folder} ({error}). Free some space "
                             "there, or set TMPDIR to another folder.") from error
        tree = ElementTree.parse(path)
        layers = [layer for layer in tree.iter("layer")
                  if layer.get("type") in ("Convolution", "GroupConvolution")]
        for layer in layers[:KEPT_EXACT]:
            marks = layer.find("rt_info")
            marks = ElementTree.SubElement(layer, "rt_info") if marks is None else marks
            ElementTree.SubElement(marks, "attribute", name="precise", version="0")
        tree.write(path)
        return core.read_model(path, config={"ENABLE_MMAP": False})  # the file goes away

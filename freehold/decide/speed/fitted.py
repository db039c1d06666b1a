"""Made by bench/fit_throughput.py from facts/throughput.yaml, never by hand."""

from collections.abc import Mapping
from types import MappingProxyType

VALUES: Mapping[str, float] = MappingProxyType(
    {
        "compute.tensorrt": 0.876,
        "compute.vllm": 0.81,
        "compute.llama.cpp": 0.713,
        "compute.pytorch": 0.163,
        "compute.llama.cpp.cpu": 0.376,
        "compute.llama.cpp.soc": 1.11,
        "power.tensorrt": 2.76,
        "power.vllm": 2.11,
        "power.llama.cpp": 0.742,
        "compute.fp8": 0.897,
        "compute.fp4": 0.813,
        "compute.int8": 0.659,
        "compute.widened": 0.777,
        "bandwidth.tensorrt": 0.973,
        "bandwidth.vllm": 0.816,
        "bandwidth.llama.cpp": 0.844,
        "bandwidth.pytorch": 0.467,
        "bandwidth.llama.cpp.large": 0.679,
        "bandwidth.small": 1.05,
        "bandwidth.soc": 0.984,
        "bandwidth.unpacked": 0.942,
        "bandwidth.unpacked.llama.cpp.large": 0.972,
        "bandwidth.unpacked.llama.cpp.soc": 0.986,
        "amd": 0.893,
        "compute.experts": 0.542,
        "bandwidth.experts": 1.01,
        "tuned": 1.07,
        "ramp": 43.3,
        "apart": 0.365,
        "ungrouped": 0.786,
        "step_s.tensorrt": 0.00137,
        "step_s.vllm": 0.00166,
        "step_s.llama.cpp": 0.000194,
        "step_s.pytorch": 0.00669,
        "layer_s.tensorrt": 5.77e-05,
        "layer_s.vllm": 4.65e-05,
        "layer_s.llama.cpp": 5.76e-05,
        "layer_s.llama.cpp.soc": 2.73,
        "sequence_s": 1.4e-05,
        "hop_s.linked": 1.2e-05,
        "hop_s.bus": 3.8e-05,
        "link.linked": 3.49e11,
        "link.bus": 1.92e10,
    }
)

# Of the error on cases that no fit saw, as a share of what was measured.
MEDIAN_ERROR, NINE_IN_TEN_WITHIN = 0.11, 0.3

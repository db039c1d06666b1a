"""Made by bench/fit_throughput.py from facts/throughput.yaml, never by hand."""

from collections.abc import Mapping
from types import MappingProxyType

VALUES: Mapping[str, float] = MappingProxyType(
    {
        "compute.tensorrt": 0.9514,
        "compute.vllm": 0.831,
        "compute.llama.cpp": 0.7637,
        "compute.pytorch": 0.1754,
        "compute.llama.cpp.cpu": 0.3521,
        "compute.llama.cpp.soc": 1.022,
        "power.tensorrt": 2.188,
        "power.vllm": 1.83,
        "power.llama.cpp": 0.8041,
        "compute.fp8": 0.8468,
        "compute.fp4": 0.7778,
        "compute.int8": 0.6196,
        "compute.widened": 0.7782,
        "bandwidth.tensorrt": 0.829,
        "bandwidth.vllm": 0.7345,
        "bandwidth.llama.cpp": 0.7811,
        "bandwidth.pytorch": 0.5172,
        "bandwidth.llama.cpp.large": 0.6903,
        "bandwidth.small": 1.058,
        "bandwidth.soc": 0.9837,
        "bandwidth.unpacked": 0.8358,
        "bandwidth.unpacked.llama.cpp.large": 0.9847,
        "bandwidth.unpacked.llama.cpp.soc": 1.004,
        "amd": 0.8481,
        "compute.experts": 0.6398,
        "bandwidth.experts": 0.9749,
        "tuned": 1.158,
        "ramp": 56.87,
        "apart": 0.2849,
        "ungrouped": 0.796,
        "step_s.tensorrt": 0.001069,
        "step_s.vllm": 0.001057,
        "step_s.llama.cpp": 0.0002801,
        "step_s.pytorch": 0.004883,
        "layer_s.tensorrt": 2.628e-05,
        "layer_s.vllm": 5.947e-05,
        "layer_s.llama.cpp": 1.647e-05,
        "sequence_s": 9.84e-06,
        "hop_s.linked": 1.123e-05,
        "hop_s.bus": 3.2e-05,
        "link.linked": 2.887e11,
        "link.bus": 2.029e10,
    }
)

# Of the error on cases that no fit saw, as a share of what was measured.
MEDIAN_ERROR, NINE_IN_TEN_WITHIN = 0.13, 0.37

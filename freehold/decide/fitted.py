"""Made by bench/fit_throughput.py from facts/throughput.yaml, never by hand."""

from collections.abc import Mapping
from types import MappingProxyType

VALUES: Mapping[str, float] = MappingProxyType(
    {
        "compute.tensorrt": 0.6314,
        "compute.vllm": 0.4092,
        "compute.llama.cpp": 0.5907,
        "compute.pytorch": 0.2034,
        "compute.llama.cpp.large": 0.5201,
        "compute.small": 1.043,
        "compute.soc": 1.034,
        "compute.fp8": 0.8316,
        "compute.fp4": 0.6459,
        "compute.int8": 0.5947,
        "bandwidth.tensorrt": 0.8463,
        "bandwidth.vllm": 0.6963,
        "bandwidth.llama.cpp": 0.7214,
        "bandwidth.pytorch": 0.6532,
        "bandwidth.llama.cpp.large": 0.6891,
        "bandwidth.small": 1.043,
        "bandwidth.soc": 0.9344,
        "experts": 0.7871,
        "step_s.tensorrt": 0.002095,
        "step_s.vllm": 0.003991,
        "step_s.llama.cpp": 0.0005294,
        "step_s.pytorch": 0.005101,
        "sequence_s": 1.034e-05,
        "parallel.linked": 0.8963,
        "parallel.bus": 0.5657,
        "server": 0.9001,
    }
)

# Of the error on cases that were held out, as a share of what was measured.
MEDIAN_ERROR, NINE_IN_TEN_WITHIN = 0.14, 0.35

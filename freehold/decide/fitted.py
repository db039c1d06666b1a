"""Made by bench/fit_throughput.py from facts/throughput.yaml, never by hand."""

from collections.abc import Mapping
from types import MappingProxyType

VALUES: Mapping[str, float] = MappingProxyType(
    {
        "compute.tensorrt": 0.6858,
        "compute.vllm": 0.5348,
        "compute.llama.cpp": 0.6255,
        "compute.pytorch": 0.1897,
        "compute.llama.cpp.large": 0.5625,
        "compute.llama.cpp.cpu": 0.4171,
        "compute.small": 0.9722,
        "compute.soc": 1.069,
        "compute.fp8": 0.7457,
        "compute.fp4": 0.585,
        "compute.int8": 0.6412,
        "bandwidth.tensorrt": 0.8352,
        "bandwidth.vllm": 0.7483,
        "bandwidth.llama.cpp": 0.7353,
        "bandwidth.pytorch": 0.5757,
        "bandwidth.llama.cpp.large": 0.7586,
        "bandwidth.small": 0.9955,
        "bandwidth.soc": 1.008,
        "bandwidth.unpacked": 0.8182,
        "experts": 0.8212,
        "step_s.tensorrt": 0.00209,
        "step_s.vllm": 0.002294,
        "step_s.llama.cpp": 0.000559,
        "step_s.pytorch": 0.00493,
        "sequence_s": 1.098e-05,
        "parallel.linked": 0.8834,
        "parallel.bus": 0.583,
    }
)

# Of the error on cases that no fit saw, as a share of what was measured.
MEDIAN_ERROR, NINE_IN_TEN_WITHIN = 0.15, 0.51

"""Made by bench/fit_throughput.py from facts/throughput.yaml, never by hand."""

from collections.abc import Mapping
from types import MappingProxyType

VALUES: Mapping[str, float] = MappingProxyType(
    {
        "compute.tensorrt": 0.6275,
        "compute.vllm": 0.4193,
        "compute.llama.cpp": 0.6086,
        "compute.pytorch": 0.2034,
        "compute.llama.cpp.large": 0.5748,
        "compute.small": 1.029,
        "compute.soc": 1.008,
        "compute.fp8": 0.8201,
        "compute.fp4": 0.6451,
        "compute.int8": 0.5947,
        "bandwidth.tensorrt": 0.8426,
        "bandwidth.vllm": 0.6985,
        "bandwidth.llama.cpp": 0.7225,
        "bandwidth.pytorch": 0.6529,
        "bandwidth.llama.cpp.large": 0.6882,
        "bandwidth.small": 1.038,
        "bandwidth.soc": 0.9333,
        "experts": 0.7777,
        "step_s.tensorrt": 0.002118,
        "step_s.vllm": 0.003777,
        "step_s.llama.cpp": 0.000529,
        "step_s.pytorch": 0.005102,
        "sequence_s": 9.684e-06,
        "parallel.linked": 0.8988,
        "parallel.bus": 0.5618,
    }
)

# Of the error on cases that were held out, as a share of what was measured.
MEDIAN_ERROR, NINE_IN_TEN_WITHIN = 0.13, 0.34

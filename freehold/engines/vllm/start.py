"""Run by its path under the interpreter that has vLLM, which need not have Freehold.

Only this package is made importable there, not what lies beside it: vLLM needs other
versions of the same libraries. Each process that vLLM starts runs this file too.
"""

import importlib.util
import os
import sys
from pathlib import Path

if "freehold" not in sys.modules:
    _folder = Path(__file__).resolve().parents[2]
    _spec = importlib.util.spec_from_file_location(
        "freehold", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    if _spec is None or _spec.loader is None:
        raise ImportError(f"{_folder} is not Freehold")
    sys.modules["freehold"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["freehold"])

if __name__ == "__main__":
    from freehold.engines.vllm.worker import main

    main()
elif __name__ == "__mp_main__":  # a process of vLLM's, before it does anything
    from freehold.engines import child

    child.settle_in()
    if os.environ.get("FREEHOLD_VLLM_ALONE"):
        from freehold.engines.vllm.alone import open_no_ports

        open_no_ports()
    from freehold.engines.vllm.bare_rows import keep_bare

    keep_bare()

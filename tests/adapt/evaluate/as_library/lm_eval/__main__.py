"""Stands in for lm-evaluation-harness 0.4.13: asks the route it is told of, once, and ends as the
real one did. `result.json` is what that wrote of such a run; so are the words."""

import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

import httpx2

_LOG = (
    "ERROR    [models.api_models:557] Exception:ClientResponseError(RequestInfo(headers="
    "<CIMultiDictProxy('Authorization': 'Bearer {key}', 'Accept': '*/*')>)), retrying.\n"
)
_ENDS = {
    "unknown": "ValueError: Tasks not found: unknown",
    "likely": '  File "openai_completions.py", line 251, in loglikelihood\nNotImplementedError: no',
    "far": "ConnectionError: Couldn't reach 'openai/gsm8k' on the Hub (LocalEntryNotFoundError)",
    "broken": "RuntimeError: Session is closed",
}


def main() -> None:
    words = sys.argv[1:]
    given = dict(pairwise(words))
    model, task = json.loads(given["--model_args"]), given["--tasks"]
    key = os.environ["OPENAI_API_KEY"]
    if task in _ENDS:
        sys.exit(_LOG.format(key=key) + _ENDS[task])
    body = {"model": model["model"], "messages": [{"role": "user", "content": "2 + 2?"}]}
    if task == "odd":
        body["repetition_penalty_x"] = 2
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx2.post(model["base_url"], json=body, headers=headers, trust_env=False)
    if answer.is_error:
        sys.exit(f"API request failed! Response text: {answer.text}. Retrying...\n{answer}")
    if task == "slow":
        Path(given["--include_path"], "pid").write_text(str(os.getpid()))
        time.sleep(60)
    found = json.loads(Path(__file__).parents[1].joinpath("result.json").read_bytes())
    if task == "groups":
        found["results"]["all"] = {"alias": "all", "perplexity,x": 2, "perplexity_stderr,x": "N/A"}
        found["higher_is_better"]["all"] = {"perplexity": False}
    place = Path(given["--output_path"])
    at = f"{place.stem}_2026-11-26T12-09-35.539392.json"
    place.with_name(at).write_text("{}" if task == "other" else json.dumps(found))


main()

"""The gateway's side of vLLM, where vLLM is not installed."""

import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest

from freehold.config.schema import VllmSettings
from freehold.core.errors import Code, UserError
from freehold.core.model import ModelFile, Task
from freehold.engines.base import LocalModel
from freehold.engines.vllm import engine as vllm_engine
from freehold.engines.vllm.engine import Vllm
from tests.harness import card

_START = Path(vllm_engine.__file__).with_name("start.py")


def _model(**changes: object) -> LocalModel:
    files = (
        ModelFile("config.json", "sha256:" + "1" * 64, 1),
        ModelFile("model.safetensors", "sha256:" + "2" * 64, 1),
    )
    found = replace(card(), format="safetensors", files=files)
    return LocalModel(replace(found, **changes), Path("/blobs") / ("2" * 64))  # type: ignore[arg-type]


@pytest.fixture
def python(tmp_path: Path) -> str:
    """An interpreter that has something by the name of vLLM, and not Freehold."""
    venv.create(tmp_path, symlinks=True)
    (site,) = tmp_path.glob("lib/python*/site-packages")
    (site / "vllm.py").write_text("raise SystemExit('vLLM must not be imported')")
    return str(tmp_path / "bin" / "python")


@pytest.mark.parametrize("settings", [VllmSettings(), VllmSettings(python="/nonexistent/python")])
def test_without_vllm_it_says_what_to_install(settings: VllmSettings) -> None:
    for ask in (
        lambda: Vllm(settings).capabilities(_model()),
        lambda: Vllm(settings).launch(_model(), "/s"),
    ):
        with pytest.raises(UserError) as refused:
            ask()
        assert refused.value.code is Code.NOT_INSTALLED
        assert 'pip install "freehold[vllm]"' in refused.value.message
        assert "engines.vllm.python" in refused.value.message


def test_vllm_is_looked_for_without_being_imported(python: str) -> None:
    engine = Vllm(VllmSettings(python=python, streams=3, context_length=200))
    able = engine.capabilities(_model())
    assert (able.concurrency, able.context_length, able.adapters, able.salted) == (
        3,
        200,
        True,
        True,
    )


def test_what_it_cannot_read_is_refused(python: str) -> None:
    engine = Vllm(VllmSettings(python=python))
    for model in (_model(format="gguf"), _model(task=Task.EMBEDDINGS)):
        with pytest.raises(UserError) as refused:
            engine.capabilities(model)
        assert refused.value.code is Code.FILE_REFUSED
        assert model.card.name in refused.value.message


def test_the_process_is_given_each_file_by_name_and_no_port(python: str) -> None:
    spec = Vllm(VllmSettings(python=python, eager=True)).launch(_model(), "/s/e.sock")
    assert spec.argv[:3] == (python, "-P", str(_START))
    assert f"--file=model.safetensors=/blobs/{'2' * 64}" in spec.argv
    assert f"--file=config.json=/blobs/{'1' * 64}" in spec.argv
    assert {"--socket=/s/e.sock", "--eager"} <= set(spec.argv)
    assert not any("port" in part or "host" in part for part in spec.argv)


def test_other_files_than_the_digest_says_are_never_loaded(python: str, tmp_path: Path) -> None:
    """And the interpreter that has vLLM needs no Freehold of its own."""
    (tmp_path / "1").write_bytes(b"{}")
    asked = [
        python, "-P", str(_START), f"--file=config.json={tmp_path / '1'}", "--digest=sha256:0",
        f"--socket={tmp_path / 's'}", "--threads=1", "--streams=1", "--context=1", "--dtype=auto",
        "--gpu-memory=0.9", "--max-rank=1", "--adapters-at-once=1", "--max-adapters=1", "--gpus=1",
    ]  # fmt: skip
    process = subprocess.Popen(
        asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert process.wait(60) == 3  # its standard input is open until then
    _, said = process.communicate()
    assert "expected sha256:0" in said
    assert "vLLM must not be imported" not in said


def test_it_holds_at_least_the_adapters_of_a_batch() -> None:
    with pytest.raises(ValueError, match="at least adapters_at_once"):
        VllmSettings(adapters_at_once=9, max_adapters=8)


def test_what_runs_beside_vllm_needs_the_standard_library_alone() -> None:
    """Its interpreter may have nothing else of ours."""
    script = (
        "import sys; before = set(sys.modules)\n"
        "import freehold.engines.vllm.worker, freehold.engines.vllm.door\n"
        "found = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(found - sys.stdlib_module_names - {'freehold'}))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert ended.stdout.strip() == b"[]"

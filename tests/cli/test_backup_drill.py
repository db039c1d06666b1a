"""The drill: a gateway is backed up while it answers, dies, and comes back elsewhere."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import orjson

from tests.cli.conftest import Run
from tests.installation import Installation, stock_tiny


class _Traffic:
    """Asks without a pause, and keeps the id of each request that was answered."""

    def __init__(self, gateway: Installation, clients: int) -> None:
        self.answered: list[str] = []
        self._gateway = gateway
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
        headers = {"authorization": f"Bearer {self._gateway.key}"}
        with httpx2.Client(base_url=self._gateway.url, headers=headers, timeout=60) as client:
            while not self._ended.is_set():
                try:
                    answer = client.post("/v1/chat/completions", json=body)
                except httpx2.HTTPError:
                    continue  # it was killed
                if answer.is_success:
                    self.answered.append(answer.headers["x-freehold-request-id"])
                self._ended.wait(0.005)  # other tests want the machine too

    def wait_for(self, count: int) -> None:
        wanted = len(self.answered) + count
        while len(self.answered) < wanted:
            self._ended.wait(0.01)

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def _records(gateway: Installation) -> dict[str, tuple[Any, ...]]:
    """Of each request what it was billed for; more than a page, if need be."""
    found: dict[str, tuple[Any, ...]] = {}
    before: dict[str, str] = {}
    headers = {"authorization": f"Bearer {gateway.key}"}
    while True:
        url = f"{gateway.url}/admin/v1/requests"
        page = httpx2.get(url, params={"limit": 1000, **before}, headers=headers).json()["data"]
        if not page:
            return found
        for row in page:
            found[row["id"]] = row["outcome"], row["tokens_in"], row["tokens_out"]
        before = {"before": page[-1]["id"]}


def test_a_backup_under_traffic_brings_everything_back_up_to_its_moment(
    tmp_path: Path, begin: Callable[..., Installation], commands: Callable[[Path], Run]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir(mode=0o700)
    stock_tiny(old)
    gateway = begin(old, "--engine", "fake", "--model", "tiny")
    (tmp_path / "phrase").write_text("a passphrase for tests")
    phrase = ("--passphrase-file", str(tmp_path / "phrase"))
    run = commands(old)
    traffic = _Traffic(gateway, clients=2)
    try:
        traffic.wait_for(50)
        answered_before = set(traffic.answered)
        file = str(tmp_path / "backup")
        made = run("backup", file, *phrase, "--include-models", "--json")
        assert made.exit_code == 0, made.output
        assert orjson.loads(made.stdout)["notes"] == []
        traffic.wait_for(20)
        gateway.kill()
    finally:
        traffic.end()
    verified = run("backup", "verify", file, *phrase, "--json")
    assert verified.exit_code == 0, verified.stdout
    restored = run("restore", file, "--home", str(new), *phrase, "--json")
    assert restored.exit_code == 0, restored.stdout
    assert orjson.loads(restored.stdout)["lacks_models"] == []

    again = begin(new, "--engine", "fake", "--model", "tiny")
    assert again.key == gateway.key
    records = _records(again)
    audited = commands(new)("audit", "verify", "--json")
    assert orjson.loads(audited.stdout)["findings"] == []
    asked = httpx2.post(
        f"{again.url}/v1/chat/completions",
        json={"model": "tiny", "messages": [{"role": "user", "content": "x"}]},
        headers={"authorization": f"Bearer {gateway.key}"},
    )
    assert asked.is_success, "an old key works"
    again.stop()
    survivor = begin(old, "--engine", "fake", "--model", "tiny")
    truth = _records(survivor)

    assert answered_before <= records.keys(), "all that was answered before it began"
    assert records.keys() < truth.keys(), "and nothing that never was; what came later is lost"
    ended = {id: each for id, each in records.items() if each[0] != "orphaned"}
    assert ended == {id: truth[id] for id in ended}
    assert answered_before <= ended.keys()

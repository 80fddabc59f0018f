"""Names of models that are no folders: what the hub's cache holds is found, and every refusal is a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ratchet.core.errors import ModelError
from ratchet.policy.hub import model_folder, revision_of
from ratchet.policy.policy import Policy

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ASK = """
import sys
from ratchet.core.errors import ModelError
from ratchet.policy.hub import model_folder, revision_of
for name in sys.argv[1:]:
    try:
        folder = model_folder(name)
        print(folder, revision_of(folder))
    except ModelError as error:
        print(error)
"""


def asked(cache: Path, *names: str, **environment: str) -> list[str]:
    """Return what a fresh process says of some names: the library reads its settings when it is imported."""
    told = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    told |= {"HF_HOME": str(cache), **environment}
    answer = subprocess.run([sys.executable, "-c", ASK, *names], capture_output=True, text=True, env=told, check=True)
    return answer.stdout.splitlines()


def test_a_cached_model_is_found_without_a_network_and_its_commit_is_known(tmp_path: Path) -> None:
    home = tmp_path / "hub" / "models--owner--name"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    snapshot = home / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    plain, absent, pinned = asked(tmp_path, "owner/name", "owner/other", f"owner/name@{COMMIT}", HF_HUB_OFFLINE="1")
    assert plain == pinned == f"{snapshot} {COMMIT}"
    assert 'policy.model = "owner/other": there is no such folder' in absent
    assert "not in the cache" in absent


def test_a_hub_that_cannot_be_reached_is_a_sentence(tmp_path: Path) -> None:
    (told,) = asked(tmp_path, "owner/name", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_ETAG_TIMEOUT="1")
    assert 'policy.model = "owner/name": there is no such folder' in told
    assert "Check the network, or name a folder" in told


@pytest.mark.parametrize("name", ["gone", "./gone", "/no/such/folder", "a/b/c", "../up/one"])
def test_what_can_be_no_hub_id_is_a_folder_that_is_not_there(name: str) -> None:
    assert model_folder(name) == Path(name)
    with pytest.raises(ModelError, match="there is no such folder"):
        Policy.load(name)


def test_a_folder_beside_us_is_not_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert model_folder("owner/name") == Path("owner/name")
    assert revision_of(Path("owner/name")) == ""

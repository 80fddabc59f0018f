"""From what `policy.model` says to a folder: a folder as it is, a model of the Hugging Face hub as it was fetched."""

from __future__ import annotations

import re
from pathlib import Path

from ratchet.core.errors import ModelError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
"""``owner/name``, with ``@revision`` where one is wanted: a branch, a tag or a commit."""

WANTED = ("*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt")
"""Files of a model that are of use; weights in other forms are left where they are."""


def model_folder(name: str) -> Path:
    """Return the folder of a model, fetched from the hub into its own cache if `name` is no folder but an id.

    Raises `ModelError` if there is no such folder, or the hub cannot be reached, does not know the model, or does not
    let us have it.
    """
    path = Path(name).expanduser()
    if path.exists() or not HUB_ID.fullmatch(name):
        return path
    from huggingface_hub import errors, snapshot_download

    owner_and_name, _, revision = name.partition("@")
    where = f'policy.model = "{name}": there is no such folder, and as a model of the Hugging Face hub'
    try:
        return Path(snapshot_download(owner_and_name, revision=revision or None, allow_patterns=list(WANTED)))
    except errors.GatedRepoError:
        why = "it is gated. Agree to its terms on its page, then: hf auth login"
    except errors.RepositoryNotFoundError:
        why = "it does not exist, or is private. Look at the spelling; for a private model: hf auth login"
    except errors.RevisionNotFoundError:
        why = f'it has no revision "{revision}". Look at the spelling'
    except errors.LocalEntryNotFoundError:
        why = "it is not in the cache, and the hub cannot be reached. Check the network, or name a folder"
    except errors.OfflineModeIsEnabled:
        why = "it is not in the cache, and HF_HUB_OFFLINE forbids to fetch it. Unset that, or name a folder"
    except (OSError, ValueError, errors.HfHubHTTPError) as error:
        why = f"it cannot be fetched: {' '.join(str(error).split())[:300]}. Check the network, or name a folder"
    raise ModelError(f"{where} {why}.") from None


def revision_of(folder: Path) -> str:
    """Return the commit of a folder in the hub's cache; empty for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else ""

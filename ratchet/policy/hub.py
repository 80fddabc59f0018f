"""Between folders and the Hugging Face hub: what `policy.model` says becomes a folder, and a folder is pushed."""

from __future__ import annotations

import re
from pathlib import Path

from ratchet.core.errors import ConfigError, ModelError

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


def check_push(name: str) -> None:
    """Raise `ConfigError`, before anything long, if nothing can be pushed to the hub under a name."""
    if not HUB_ID.fullmatch(name) or "@" in name:
        raise ConfigError(f'--push {name}: a model of the hub is called owner/name, "me/judge-4" say.')
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"--push {name}: HF_HUB_OFFLINE forbids to reach the hub. Unset it.")
    if not get_token():
        raise ConfigError(
            f"--push {name}: the hub needs a token that may write, and there is none. Run hf auth login, or set "
            "HF_TOKEN."
        )


def push_folder(folder: Path, name: str, *, private: bool, message: str) -> str:
    """Push a model folder to the hub, as one commit to a repository that is made if it is not there; return its URL.

    Raises `ModelError`; the folder stays as it is.
    """
    from huggingface_hub import HfApi, errors

    hub = HfApi()
    try:
        made = hub.create_repo(name, private=private, exist_ok=True)
        hub.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message=message)
        return str(made)
    except errors.RepositoryNotFoundError:  # what the hub answers to a wrong token, too
        why = "the token may not write there, or the owner does not exist. Look at hf auth whoami"
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        refused = "The token may not write there. " if status in (401, 403) else ""
        why = f"{refused}The hub answered {status}: {' '.join(str(error).split())[:300]}"
    # The last is that of whichever client the library uses.
    except (OSError, ValueError, errors.HTTPError) as error:  # type: ignore[attr-defined]
        why = f"the hub cannot be reached: {' '.join(str(error).split())[:300]}. Check the network"
    raise ModelError(
        f"{folder} is written, and was not pushed to {name}: {why}. To try again: hf upload {name} {folder}"
    )

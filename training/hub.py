"""A network with its path and its prediction in one folder, on the disk or on the Hugging Face hub.

Beside the network's own ``config.json`` and ``model.safetensors`` it holds ``path.json``: alpha, sigma, the prediction
and the checksum of the weights that they belong to.
"""

from __future__ import annotations

import hashlib
import json
import os
import textwrap
from pathlib import Path
from typing import Any, Final

from huggingface_hub import HfApi, snapshot_download

import interpolants
from models import SiT
from models.hub import WEIGHTS
from training.files import write_text

FORMAT: Final = 1
PATH_FILE: Final = "path.json"
CONVENTION: Final = "x_t = alpha(t) data + sigma(t) noise, noise at t = 0 and data at t = 1"


def save(
    folder: str | os.PathLike[str], model: Any, path: interpolants.Path, prediction: str, license: str | None
) -> None:
    """Write the network, ``path.json`` and README.md; see Field.save_pretrained."""
    if not isinstance(model, SiT):
        raise TypeError(f"Field.save_pretrained: model must be a models.SiT, got {type(model).__name__}.")
    folder = Path(folder)
    text = (
        f"Predicts the {prediction} on the path {path.name}, alpha = `{path.alpha.expr}`, sigma = `{path.sigma.expr}`: "
        f"{CONVENTION}.\n\n```python\nfrom training import Field, sample_ode\n\n"
        'field = Field.from_pretrained("this folder")\nsamples = sample_ode(field, noise, y=y)\n```'
    )
    (folder / "README.md").unlink(missing_ok=True)  # else that of another path would stay
    model.save_pretrained(folder, model_card_kwargs={"license": license, "text": text})
    meta = {
        "format": FORMAT,
        "convention": CONVENTION,
        "path": path.to_text(),
        "prediction": prediction,
        "sha256": sha256(folder / WEIGHTS),
        "version": interpolants.__version__,
    }
    write_text(folder / PATH_FILE, json.dumps(meta, indent=2) + "\n")


def load(name: str | os.PathLike[str], **download: Any) -> tuple[SiT, interpolants.Path, str]:
    """The network, its path and its prediction; see Field.from_pretrained."""
    where = "Field.from_pretrained"
    folder = Path(name) if os.path.isdir(name) else _downloaded(str(name), where, **download)
    try:
        meta = json.loads((folder / PATH_FILE).read_text())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{where}: {str(name)!r} must hold {PATH_FILE}, got none. Of a network alone, SiT.from_pretrained and "
            "Field(model, path, prediction) make one."
        ) from None
    except ValueError as error:
        raise ValueError(f"{where}: {PATH_FILE} must be JSON, got {error}.") from None
    if meta.get("format") != FORMAT or meta.get("convention") != CONVENTION:
        got = (meta.get("format"), meta.get("convention"))
        raise ValueError(f"{where}: {PATH_FILE} must be of format {FORMAT} with {CONVENTION}, got {got!r}.")
    if sha256(folder / WEIGHTS) != meta["sha256"]:
        raise ValueError(
            f"{where}: {WEIGHTS} must be the one that {PATH_FILE} was written with, got another. Save the Field again, "
            "if these are its weights."
        )
    return SiT.from_pretrained(folder), interpolants.Path.from_text(meta["path"]), meta["prediction"]


def _downloaded(name: str, where: str, **download: Any) -> Path:
    """The folder of a repository.

    Raises:
        FileNotFoundError: If it cannot be reached.
    """
    try:
        return Path(snapshot_download(name, **download))
    except (OSError, ValueError) as error:  # ValueError if it cannot be the name of a repository
        reason = textwrap.shorten(str(error), 200)
        contract = "a folder that is there, or a repository of the hub that can be reached"
        raise FileNotFoundError(f"{where}: name must be {contract}, got {name!r}: {reason}") from error


def is_path(found: interpolants.Path, path: interpolants.Path) -> bool:
    """Whether the path of a folder is ``path``: a folder of before ``Path.to_text`` may state it in another form."""
    if found == path:
        return True
    try:
        printed = interpolants.Path.from_text({"alpha": str(path.alpha.expr), "sigma": str(path.sigma.expr)})
    except ValueError:
        return False
    return found == printed


def push(folder: str, repo_id: str, *, private: bool | None, token: str | None, message: str) -> str:
    """Upload a folder, and return its address."""
    api = HfApi(token=token)
    repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    return str(api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message))


def sha256(file: Path) -> str:
    """The checksum of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()

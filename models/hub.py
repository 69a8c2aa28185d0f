"""Networks as folders of ``config.json`` and ``model.safetensors``, on the disk or on the Hugging Face hub."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin, hf_hub_download
from safetensors.torch import load_file
from torch import nn

WEIGHTS = "model.safetensors"

Network = TypeVar("Network", bound="SharedNetwork")


class SharedNetwork(nn.Module, PyTorchModelHubMixin):
    """save_pretrained, from_pretrained and push_to_hub of huggingface_hub, which rebuild a network from its arguments.

    Beside what that does, loading is strict and never unpickles: a weight that is missing, unexpected or of another
    shape is an error that names it.
    """

    @classmethod
    def _from_pretrained(
        cls: type[Network],
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        map_location: str = "cpu",
        strict: bool = True,
        **arguments: Any,
    ) -> Network:
        where = f"{cls.__name__}.from_pretrained"
        if not strict:
            raise ValueError(f"{where}: strict must be True, got {strict!r}. A network with other weights is another.")
        required = [name for name, p in inspect.signature(cls).parameters.items() if p.default is p.empty]
        if absent := [name for name in required if name not in arguments]:
            raise ValueError(
                f"{where}: {model_id!r} must hold the config.json of a {cls.__name__}, got none with {absent[0]}. "
                "save_pretrained writes one."
            )
        if os.path.isdir(model_id):
            file = Path(model_id) / WEIGHTS
        else:
            file = Path(
                hf_hub_download(
                    repo_id=model_id,
                    filename=WEIGHTS,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    token=token,
                    local_files_only=local_files_only,
                )
            )
        model = cls(**arguments)
        model.load_state_dict(load_file(file))
        return model.to(map_location).eval()

    def generate_model_card(self, *args: Any, license: str | None = None, text: str = "", **kwargs: Any) -> ModelCard:
        """The README.md of the folder.

        Args:
            args: Not used.
            license: Of the weights, as the hub names it: mit, apache-2.0, cc-by-nc-4.0.
            text: A paragraph of your own; by default the network's arguments.
            kwargs: Not used.
        """
        data = ModelCardData(
            library_name="sit-interpolants",
            license=license,
            tags=["diffusion", "flow-matching", "stochastic-interpolants", "sit"],
            pipeline_tag="unconditional-image-generation",
        )
        arguments = json.loads(json.dumps(self._hub_mixin_config))
        lines = "\n".join(f"| {name} | {value} |" for name, value in sorted(arguments.items()))
        name = type(self).__name__
        return ModelCard(
            f"---\n{data.to_yaml()}\n---\n\n# {name}\n\n{text}\n\n| argument of {name} | value |\n|---|---|\n{lines}\n"
        )

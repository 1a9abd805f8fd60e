"""Weights of the authors' model under the names of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import MissingModel, first_line

_FILES = ("model.safetensors", "pytorch_model.bin")
_NAMES = {"model.": "encoder.", "stack.1.": "head.first.", "stack.4.": "head.last."}
"""Theirs and ours: the encoder, and the two linear layers of a sequence with dropout and ReLU."""


def state_of(name: str) -> dict[str, Any]:
    """The state dict of a released model, for a `networks.LineEncoder` of TrOCR-base's shape.

    Args:
        name: Hugging Face id, or a folder with ``model.safetensors`` or ``pytorch_model.bin``.

    Raises:
        MissingModel: there are no such weights.
    """
    path = _file(name)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        import torch

        state = torch.load(path, map_location="cpu", weights_only=True)
    found = {}
    for key, value in state.items():
        theirs = next((prefix for prefix in _NAMES if key.startswith(prefix)), None)
        # The pooler of a ViT is not used.
        if theirs is not None and ".pooler." not in key:
            found[_NAMES[theirs] + key.removeprefix(theirs)] = value
    return found


def _file(name: str) -> Path:
    if Path(name).is_dir():
        for file in _FILES:
            if (Path(name) / file).is_file():
                return Path(name) / file
        raise MissingModel(f"'{name}' has neither of {', '.join(_FILES)}")
    from huggingface_hub import hf_hub_download

    reason = ""
    for file in _FILES:
        try:
            return Path(hf_hub_download(name, file))
        except (OSError, ValueError) as error:
            reason = first_line(error)
    raise MissingModel(f"the weights of '{name}' cannot be loaded: {reason}")

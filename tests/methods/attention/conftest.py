"""Kernels run on a GPU, or else in Triton's interpreter."""

from __future__ import annotations

import os
import sys

import torch

if not torch.cuda.is_available():
    # Triton chooses between compiler and interpreter when it is first imported, and transformers imports it, which
    # modules of this folder do.
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(
            "Triton was imported for its compiler before the tests of kernels could ask for its interpreter"
        )
    os.environ["TRITON_INTERPRET"] = "1"

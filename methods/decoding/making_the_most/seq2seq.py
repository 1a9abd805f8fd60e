"""A masked language model as the encoder and as the decoder of a sequence-to-sequence model (part B).

The decoder is the masked model itself, with a cross-attention sublayer after the self-attention of every layer. Their
output projections are zero at the start, so that the decoder begins as the masked model. Any model of transformers with
`base_model.encoder.layer[i].attention` will do (BERT, RoBERTa, CodeBERT).
"""

from __future__ import annotations

import copy
import inspect
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import seeding
from harness.errors import RequestError

Initial = Literal["mlm", "encoder", "random"]
"""What begins as the masked language model: encoder and decoder, the encoder alone, or nothing."""

OFFSETS = 64
"""Lengths from 64 tokens below the source's to 64 above have a class each."""


class CrossAttention(nn.Module):
    """h + W_o attention(LayerNorm(h), memory), with W_o zero at the start.

    Args:
        width: of the residual stream.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.q, self.kv, self.out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.memory: tuple[Tensor, Tensor, Tensor] | None = None

    def remember(self, memory: Tensor, mask: Tensor) -> None:
        """Compute keys and values of the source once: memory (rows, m, width), mask bool (rows, m)."""
        k, v = (self._split(part) for part in self.kv(memory).chunk(2, -1))
        self.memory = k, v, mask[:, None, None]

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, h: Tensor) -> Tensor:
        """Shape (rows, n, width) to the same."""
        if self.memory is None:
            raise RequestError("the decoder was given no source")
        k, v, mask = self.memory
        mixed = F.scaled_dot_product_attention(self._split(self.q(self.norm(h))), k, v, attn_mask=mask)
        return h + self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Translator(nn.Module):
    """Encoder, decoder, and a classifier of the target's length.

    Args:
        mlm: a masked language model of transformers; it is copied.
        initial: which parts begin as it.
        autoregressive: the decoder is causal and predicts the next token; else it is bidirectional.
        seed: of the weights that begin at random.
    """

    def __init__(self, mlm: Any, initial: Initial, *, autoregressive: bool = False, seed: int = 0) -> None:
        super().__init__()
        config = mlm.config
        self.autoregressive = autoregressive
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seeding.derive(seed, "translator"))
            self.encoder = copy.deepcopy(mlm) if initial != "random" else type(mlm)(config)
            self.decoder = _decoder(mlm, autoregressive)
            if initial == "mlm":
                self.decoder.load_state_dict(mlm.state_dict())
            layers = self.decoder.base_model.encoder.layer
            self.cross = nn.ModuleList(
                CrossAttention(config.hidden_size, config.num_attention_heads) for _ in layers
            )
            self.length = nn.Linear(config.hidden_size, 2 * OFFSETS + 1)
        # The encoder's own head is never used.
        for name, parameter in self.encoder.named_parameters():
            parameter.requires_grad_(name.startswith(self.encoder.base_model_prefix))
        for layer, cross in zip(layers, self.cross, strict=True):
            layer.attention.register_forward_hook(_Hook(cross))
        names = inspect.signature(self.decoder.forward).parameters
        self._cache_argument = "cache" if "cache" in names else "past_key_values"

    def encode(self, source: Tensor, mask: Tensor) -> Tensor:
        """Read the source and keep it for the decoder; the encoder's states, shape (rows, m, width)."""
        states: Tensor = self.encoder.base_model(input_ids=source, attention_mask=mask.long()).last_hidden_state
        for cross in self.cross:
            cross.remember(states, mask)
        return states

    def repeat(self, times: int) -> None:
        """Repeat every row of the source that is kept, in place, for several candidates each."""
        for cross in self.cross:
            if cross.memory is not None:
                k, v, mask = (part.repeat_interleave(times, 0) for part in cross.memory)
                cross.memory = k, v, mask

    def decode(self, target: Tensor, mask: Tensor) -> Tensor:
        """Logits of the target's positions, shape (rows, n, vocabulary); of the next tokens if autoregressive."""
        logits: Tensor = self.decoder(input_ids=target, attention_mask=mask.long()).logits
        return logits

    def step(self, token: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits after one more token of each row (rows, 1), and the cache with it; autoregressive only."""
        out = self.decoder(input_ids=token, use_cache=True, **{self._cache_argument: cache})
        return out.logits[:, -1], getattr(out, self._cache_argument)

    def length_logits(self, states: Tensor, mask: Tensor) -> Tensor:
        """Logits of |y| - |x| from -64 to 64, of the encoder's mean state; no gradient flows into the encoder."""
        weights = mask[..., None].to(states.dtype)
        return self.length((states.detach() * weights).sum(1) / weights.sum(1))  # type: ignore[no-any-return]


class _Hook:
    """Puts a cross-attention behind a self-attention, whose first output is the residual stream."""

    def __init__(self, cross: CrossAttention) -> None:
        self.cross = cross

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        return (self.cross(output[0]), *output[1:])


def _decoder(mlm: Any, autoregressive: bool) -> Any:
    """A fresh model of the shape of `mlm`; causal and with a cache if autoregressive."""
    if not autoregressive:
        return type(mlm)(copy.deepcopy(mlm.config))
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(mlm.config)
    config.is_decoder, config.use_cache = True, True
    return AutoModelForCausalLM.from_config(config)


def bert(vocabulary: int, width: int, layers: int, heads: int, positions: int, seed: int = 0) -> Any:
    """A BERT with a masked-language-model head and fresh weights, without dropout.

    Raises:
        ValueError: the width is not a multiple of the heads.
    """
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * width, max_position_embeddings=positions, type_vocab_size=1, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeding.derive(seed, "masked language model"))
        return BertForMaskedLM(config)

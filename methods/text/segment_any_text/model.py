"""XLM-R-shaped token classifiers whose attention sees only so far ahead, and their loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import seeding
from harness.errors import MissingModel, first_line
from methods.text.marks import MARKS

LINE_END = 0
"""The logit of a line end. The logits after it are the auxiliary classes: no mark, then each of `MARKS`."""


@dataclass(frozen=True)
class Shape:
    """Of a model: XLM-R-base cut to L blocks has hidden 768, heads 12, vocabulary 250,002 and positions 512.

    Attributes:
        vocabulary: token ids.
        hidden: width d of the residual stream; feed-forward layers are 4 d wide.
        layers: blocks, L.
        heads: attention heads.
        positions: longest input, special tokens counted.
        lookahead: tokens of the future that an output may depend on, N, over all layers together; None for all.
        auxiliary: whether there are logits for the auxiliary classes.
        dropout: of hidden states and attention in training; XLM-R's own is 0.1.
    """

    vocabulary: int
    hidden: int = 768
    layers: int = 3
    heads: int = 12
    positions: int = 512
    lookahead: int | None = 48
    auxiliary: bool = True
    dropout: float = 0.0


def visible(mask: Tensor, ahead: int | None) -> Tensor:
    """Which tokens each token attends to in one layer: bool, shape (rows, 1, n, n).

    Token i sees every token of the past and, of the future, j <= i + ahead.

    Args:
        mask: bool, shape (rows, n), what is not padding.
        ahead: tokens of the future that one layer sees, or None for all.
    """
    n = mask.shape[1]
    seen = mask[:, None, None, :].expand(-1, 1, n, n)
    if ahead is None:
        return seen
    place = torch.arange(n, device=mask.device)
    return seen & (place[None, :] <= place[:, None] + ahead)


class TokenClassifier(nn.Module):
    """XLM-RoBERTa of the library transformers with a linear head over every token and limited lookahead.

    N tokens of lookahead are spread evenly over the L layers: each sees floor(N / L) tokens ahead.

    Args:
        net: an ``XLMRobertaForTokenClassification``.
        lookahead: N, or None for no limit.
    """

    def __init__(self, net: Any, lookahead: int | None) -> None:
        super().__init__()
        self.net = net
        layers = net.config.num_hidden_layers
        self.ahead = None if lookahead is None else lookahead // layers

    @property
    def window(self) -> int:
        """The longest input in tokens, special ones counted."""
        # XLM-R numbers positions from the padding id + 1.
        return int(self.net.config.max_position_embeddings) - int(self.net.config.pad_token_id) - 1

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits, shape (rows, n, labels), of ids int64 (rows, n) and mask bool (rows, n)."""
        if self.ahead is None and bool(mask.all()):
            return self.net(input_ids=ids).logits  # type: ignore[no-any-return]
        return self.net(input_ids=ids, attention_mask=visible(mask, self.ahead)).logits  # type: ignore[no-any-return]


def fresh(shape: Shape, seed: int = 0) -> TokenClassifier:
    """A model with random weights, float32 on the CPU, in evaluation mode; they depend on `seed` alone."""
    from transformers import XLMRobertaConfig, XLMRobertaForTokenClassification

    if shape.hidden % shape.heads:
        raise ValueError(f"hidden ({shape.hidden}) must be a multiple of heads ({shape.heads})")
    config = XLMRobertaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        max_position_embeddings=shape.positions + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        num_labels=1 + (1 + len(MARKS) if shape.auxiliary else 0),
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeding.derive(seed, "initial weights"))
        net = XLMRobertaForTokenClassification(config)
    return TokenClassifier(net, shape.lookahead).eval()


def published(name: str) -> TokenClassifier:
    """A checkpoint of the authors or one like it: a Hugging Face id such as ``segment-any-text/sat-3l``, or a folder.

    Its configuration says how far ahead it looks.

    Raises:
        MissingModel: it cannot be loaded here, or is of a kind that this model is not.
    """
    from transformers import XLMRobertaConfig, XLMRobertaForTokenClassification

    try:
        raw, _ = XLMRobertaConfig.get_config_dict(name)
        if not raw:
            raise OSError("there is no config.json")
        if raw.get("lookahead_split_layers") is not None:
            raise MissingModel(f"the model '{name}' looks ahead in some layers only, which is not supported")
        config = XLMRobertaConfig.from_dict({**raw, "model_type": "xlm-roberta"}, attn_implementation="sdpa")
        net = XLMRobertaForTokenClassification.from_pretrained(name, config=config)
    except (OSError, ValueError, ImportError) as error:
        raise MissingModel(f"the model '{name}' cannot be loaded here: {first_line(error)}") from error
    return TokenClassifier(net, raw.get("lookahead")).eval()


def loss(logits: Tensor, line_end: Tensor, next_mark: Tensor, counted: Tensor) -> Tensor:
    """Binary cross-entropy of line ends plus, where there are logits for it, cross-entropy of the next mark.

    Both are means over the tokens in `counted`; their weights are equal.

    Args:
        logits: shape (rows, n, labels).
        line_end: bool, shape (rows, n).
        next_mark: int64, shape (rows, n), an auxiliary class.
        counted: bool, shape (rows, n).
    """
    chosen = logits[counted].float()
    total = F.binary_cross_entropy_with_logits(chosen[:, LINE_END], line_end[counted].float())
    if chosen.shape[1] > 1:
        total = total + F.cross_entropy(chosen[:, 1:], next_mark[counted])
    return total


def with_one_logit(model: TokenClassifier) -> TokenClassifier:
    """`model` with the logit of a line end alone, its weights kept; changes the model."""
    head = model.net.classifier
    one = nn.Linear(head.in_features, 1)
    with torch.no_grad():
        one.weight.copy_(head.weight[LINE_END : LINE_END + 1])
        one.bias.copy_(head.bias[LINE_END : LINE_END + 1])
    model.net.classifier = one.to(head.weight.device, head.weight.dtype)
    model.net.config.num_labels = model.net.num_labels = 1
    return model


def shrink(model: TokenClassifier, used: Tensor) -> None:
    """Keep only the rows of the embedding table for the ids in `used` (int64, rising, with the padding id in it).

    Cost and outputs do not depend on rows that no text uses; token i of the new table is ``used[i]``.
    """
    table = model.net.roberta.embeddings.word_embeddings
    padding = int(torch.searchsorted(used, model.net.config.pad_token_id))
    smaller = nn.Embedding(len(used), table.embedding_dim, padding_idx=padding)
    with torch.no_grad():
        smaller.weight.copy_(table.weight[used])
    model.net.roberta.embeddings.word_embeddings = smaller

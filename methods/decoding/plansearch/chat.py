"""A model that replies to conversations, and any causal model of Hugging Face as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from harness.errors import HarnessError, MissingModel
from harness.seeding import derive

Conversation = tuple[str, ...]
"""What the user and the model said in turn, the user first and last."""


class Chat(ABC):
    """Replies to conversations.

    Attributes:
        tokens: generated so far, each reply's end included.
    """

    tokens: int = 0

    @abstractmethod
    def reply(self, conversations: Sequence[Conversation], temperature: float) -> list[str]:
        """A reply to each; at temperature 0 the likeliest token each time."""


class HuggingFaceChat(Chat):
    """A causal model with a chat template.

    Args:
        model: a `transformers` causal model in evaluation mode.
        tokenizer: its fast tokenizer.
        top_p: share of the probability that the likeliest tokens to draw from have together.
        limit: most tokens of a reply.
        batch: replies generated side by side, of conversations of similar lengths.
        seed: of the random numbers; the global state is put back after each call.

    Raises:
        MissingModel: the tokenizer has no chat template.
    """

    def __init__(self, model: Any, tokenizer: Any, *, top_p: float, limit: int, batch: int, seed: int) -> None:
        if tokenizer.chat_template is None:
            raise MissingModel(
                f"'{tokenizer.name_or_path}' has no chat template: name a model that follows instructions"
            )
        self.model, self.tokenizer = model, tokenizer
        self.top_p, self.limit, self.batch, self.seed = top_p, limit, batch, seed
        self.calls = 0
        # Which ids end a reply: those of the model's own settings, which are several for some chat models.
        ends = getattr(model.generation_config, "eos_token_id", None)
        ends = tokenizer.eos_token_id if ends is None else ends
        self.ends: list[int] = [ends] if isinstance(ends, int) else list(ends)

    def reply(self, conversations: Sequence[Conversation], temperature: float) -> list[str]:
        """See `Chat.reply`."""
        encoded = [self._encode(one) for one in conversations]
        order = sorted(range(len(encoded)), key=lambda place: -len(encoded[place]))
        replies = [""] * len(encoded)
        device = self.model.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.inference_mode():
            for start in range(0, len(order), self.batch):
                chosen = order[start : start + self.batch]
                torch.manual_seed(derive(self.seed, "reply", self.calls))
                self.calls += 1
                texts = self._generate([encoded[place] for place in chosen], temperature)
                for place, text in zip(chosen, texts, strict=True):
                    replies[place] = text
        return replies

    def _encode(self, conversation: Conversation) -> list[int]:
        roles = ("user", "assistant")
        messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(conversation)]
        text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _generate(self, prompts: Sequence[list[int]], temperature: float) -> list[str]:
        """Replies of one batch; prompts are padded on the left."""
        width = max(map(len, prompts))
        room = getattr(self.model.config, "max_position_embeddings", None)
        limit = self.limit if room is None else min(self.limit, room - width)
        if limit < 1:
            raise HarnessError(f"a conversation has {width} tokens, and the model takes {room} with its reply")
        device = self.model.device
        ids = torch.full((len(prompts), width), self.ends[0], dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        made = self.model.generate(
            ids.to(device),
            attention_mask=mask.to(device),
            generation_config=self._plain(temperature, limit),
        )[:, width:].cpu()
        texts = []
        for row in made.tolist():
            length = next((place for place, token in enumerate(row) if token in self.ends), len(row))
            self.tokens += min(length + 1, len(row))
            texts.append(self.tokenizer.decode(row[:length], skip_special_tokens=True))
        return texts

    def _plain(self, temperature: float, limit: int) -> Any:
        """Sampling at a temperature with top-p and nothing else, whatever the defaults of the model."""
        from transformers import GenerationConfig

        law: dict[str, Any] = (
            {"do_sample": True, "temperature": temperature, "top_p": self.top_p, "top_k": 0}
            if temperature > 0
            else {"do_sample": False}
        )
        return GenerationConfig(
            **law, max_new_tokens=limit, num_beams=1, repetition_penalty=1.0, eos_token_id=self.ends,
            pad_token_id=self.ends[0],
        )  # fmt: skip

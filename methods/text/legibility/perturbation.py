"""The paper's generator: characters are exchanged for near neighbours in a space of their looks.

Five spaces: ``imgdot`` is the pixels of the rendered glyph; any other name is a vision encoder of the Hugging Face hub
(the paper has TrOCR, CLIP, BEiT and DETR), whose mean last hidden state is the glyph's vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from harness.errors import MissingModel, RequestError, first_line
from methods.text.legibility.glyphs import Glyphs, unifont

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
PIXELS = "imgdot"
MOST = 50
"""The largest rank of a neighbour."""


def ranked(vectors: np.ndarray, rows: Sequence[int], most: int = MOST) -> np.ndarray:
    """The nearest rows of `vectors` by cosine distance, nearest first: int64, shape (rows, most).

    A row itself, which is rank 0, is left out; others at distance 0 (exact look-alikes) are not. Ties go to the smaller
    row, that is, the smaller code point.

    Args:
        vectors: shape (glyphs, features).
        rows: those whose neighbours are wanted.
        most: how many.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    # In float64, so that equal pixels give equal distances and their order is that of the code points.
    unit = unit.astype(np.float64)
    found = np.empty((len(rows), most), np.int64)
    for number, row in enumerate(rows):
        distance = np.round(1 - unit @ unit[row], 9)
        distance[row] = -1
        found[number] = np.argsort(distance, kind="stable")[1 : most + 1]
    return found


@lru_cache(maxsize=8)
def neighbours(space: str = PIXELS, alphabet: str = ALPHABET, device: str = "cpu") -> Mapping[str, str]:
    """For each letter its `MOST` nearest characters in Unifont, as a string from near to far.

    Raises:
        MissingData: the font is not here.
        MissingModel: the encoder of the space cannot be loaded.
        RequestError: the font has no glyph for a letter.
    """
    glyphs = unifont()
    rows = glyphs.places(alphabet)
    if -1 in rows:
        raise RequestError(f"the font has no glyph for {alphabet[rows.index(-1)]!r}")
    vectors = glyphs.vectors if space == PIXELS else encoded(glyphs, space, device)
    near = glyphs.codepoints[ranked(vectors, rows)]
    return {letter: "".join(map(chr, line)) for letter, line in zip(alphabet, near.tolist(), strict=True)}


def perturb(word: str, k: int, n: float, table: Mapping[str, str], rng: np.random.Generator) -> str:
    """`word` with int(len * n) characters exchanged for one of their k nearest neighbours each.

    Args:
        word: only letters of `table`.
        k: largest rank, 1 to `MOST`; ranks are uniform.
        n: share of the characters, in [0, 1]; the positions are drawn without replacement.
        table: of `neighbours`.
        rng: two draws for each exchanged character.

    Raises:
        RequestError: k or n is out of range, or a letter has no neighbours.
    """
    if not (1 <= k <= MOST and 0 <= n <= 1):
        raise RequestError(f"a perturbation has k in 1..{MOST} and n in [0, 1], not k={k}, n={n}")
    characters = list(word)
    for position in rng.choice(len(word), int(len(word) * n), replace=False) if word else ():
        if characters[position] not in table:
            raise RequestError(f"no neighbours were made for {characters[position]!r}")
        characters[position] = table[characters[position]][rng.integers(k)]
    return "".join(characters)


def encoded(glyphs: Glyphs, name: str, device: str = "cpu", batch: int = 128) -> np.ndarray:
    """The mean last hidden state of a vision encoder over each glyph: float32, shape (glyphs, width).

    Args:
        glyphs: drawn black on white at 32 px, in the middle of a square.
        name: Hugging Face id or folder. Of an encoder-decoder (TrOCR, DETR) the encoder counts, of CLIP the vision half.
        device: torch device.
        batch: glyphs at a time.

    Raises:
        MissingModel: it cannot be loaded.
    """
    import torch
    from PIL import Image

    model, processor = vision_encoder(name)
    model = model.to(device)
    pictures = 255 - 255 * np.pad(glyphs.bitmaps, ((0, 0), (4, 4), (4, 4)))
    found = []
    with torch.inference_mode():
        for start in range(0, len(pictures), batch):
            part = [
                Image.fromarray(picture.astype(np.uint8))
                .resize((48, 48), Image.Resampling.NEAREST)
                .convert("RGB")
                for picture in pictures[start : start + batch]
            ]
            pixels = processor(images=part, return_tensors="pt")["pixel_values"].to(device)
            output = model(pixels)
            # DETR's last hidden state is that of its object queries.
            states = getattr(output, "encoder_last_hidden_state", None)
            states = output.last_hidden_state if states is None else states
            found.append(states.float().mean(1).cpu().numpy())
    return np.concatenate(found)


def vision_encoder(name: str) -> tuple[Any, Any]:
    """The part of a Hugging Face model that sees pictures, and its processor.

    Raises:
        MissingModel: it cannot be loaded.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, VisionEncoderDecoderModel

    try:
        kind = AutoConfig.from_pretrained(name).model_type
        if kind == "vision-encoder-decoder":
            model = VisionEncoderDecoderModel.from_pretrained(name).encoder
        else:
            model = AutoModel.from_pretrained(name)
            model = getattr(model, "vision_model", model)
        return model.eval(), AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise MissingModel(f"'{name}' cannot be loaded: {first_line(error)}") from error

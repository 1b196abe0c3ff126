"""What the training minimises: the answers, what each visual token shows, and where the words look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from serving.demo import recipe
from serving.demo.scenes import COLOURS, PATTERNS, PRODUCTS
from serving.demo.training.batches import IGNORED

if TYPE_CHECKING:
    from serving.demo.scenes import Scene

_TINY: Final = 1e-6


class CellHeads(nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
    """Training only: reads product, colour, pattern and place in the reading order off each visual token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = (len(PRODUCTS), len(COLOURS), len(PATTERNS), recipe.MAX_ITEMS)
        self.norm = nn.LayerNorm(width)
        self.heads = nn.ModuleList(nn.Linear(width, size + 1) for size in sizes)
        for head in self.heads:
            # Small at first: an untrained head must not shake the tower.
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)

    def forward(self, tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Give the loss, and the share right of each head on cells that show a product; see `cell_labels`."""
        calm = self.norm(tokens.float())
        loss, right = torch.zeros(()), []
        busy = labels[..., 0] > 0
        for index, head in enumerate(self.heads):
            scores, truth = head(calm), labels[..., index]
            loss = loss + functional.cross_entropy(scores.flatten(0, 1), truth.flatten())
            right.append((scores.argmax(-1) == truth)[busy].float().mean())
        return loss / len(self.heads), torch.stack(right)


def cell_labels(scenes: list[Scene], cells: Tensor) -> Tensor:
    """Give (pictures, cells, 4) classes, 0 for background: product, colour, pattern, place in the scene."""
    table = torch.zeros(len(scenes), recipe.MAX_ITEMS + 1, 4, dtype=torch.long)
    for at, scene in enumerate(scenes):
        for place, item in enumerate(scene.items, start=1):
            classes = (PRODUCTS.index(item.product), COLOURS.index(item.colour), PATTERNS.index(item.pattern))
            table[at, place] = torch.tensor([*(number + 1 for number in classes), place])
    return table.gather(1, cells.unsqueeze(-1).expand(-1, -1, 4))


def answer_loss(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy over the spoken tokens, and the share of them that greedy decoding would get right."""
    return functional.cross_entropy(scores.float(), targets), (scores.argmax(-1) == targets).float().mean()


def spoken(targets: Tensor) -> Tensor:
    """Mask of positions whose next token is part of an answer."""
    return targets != IGNORED


def looking_loss(looks: Tensor, wanted: Tensor, picture: slice) -> Tensor:
    """Minus the log of the attention that words give to the products they speak of.

    `looks` is (rows, heads, looks, length), `wanted` (rows, looks, visual tokens).
    """
    onto = (looks[..., picture] * wanted.unsqueeze(1)).sum(-1)
    counted = wanted.any(-1).unsqueeze(1).expand_as(onto)
    return -(onto[counted] + _TINY).log().mean() if bool(counted.any()) else torch.zeros(())

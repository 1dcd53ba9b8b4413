"""What to order so that no article falls below its minimum."""

from collections.abc import Mapping
from dataclasses import dataclass

from inventory.stock import Stock


@dataclass(frozen=True)
class Order:
    article: str
    amount: int


def orders(stock: Stock, minimums: Mapping[str, int], pack: int = 1) -> list[Order]:
    """Orders whole packs, by article name."""
    if pack < 1:
        raise ValueError(f"a pack has at least one piece, not {pack}")
    result = []
    for article, minimum in sorted(minimums.items()):
        missing = minimum - stock.free(article)
        if missing > 0:
            packs = -(-missing // pack)
            result.append(Order(article, packs * pack))
    return result

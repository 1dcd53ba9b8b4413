"""How much of each article is there."""

from dataclasses import dataclass, field


class OutOfStock(Exception):
    """More of an article was asked for than is free."""

    def __init__(self, article: str, asked: int, free: int) -> None:
        super().__init__(f"{article}: {asked} asked for, {free} free")
        self.article = article
        self.asked = asked
        self.free = free


@dataclass
class Stock:
    """Amounts by article. A reserved amount is still there, but not free."""

    _held: dict[str, int] = field(default_factory=dict)
    _reserved: dict[str, int] = field(default_factory=dict)

    def receive(self, article: str, amount: int) -> None:
        _check(amount)
        self._held[article] = self._held.get(article, 0) + amount

    def free(self, article: str) -> int:
        return self._held.get(article, 0) - self._reserved.get(article, 0)

    def reserve(self, article: str, amount: int) -> None:
        _check(amount)
        free = self.free(article)
        if amount > free:
            raise OutOfStock(article, amount, free)
        self._reserved[article] = self._reserved.get(article, 0) + amount

    def ship(self, article: str, amount: int) -> None:
        """Removes a reserved amount."""
        _check(amount)
        reserved = self._reserved.get(article, 0)
        if amount > reserved:
            raise OutOfStock(article, amount, reserved)
        self._reserved[article] = reserved - amount
        self._held[article] -= amount


def _check(amount: int) -> None:
    if amount <= 0:
        raise ValueError(f"an amount must be positive, not {amount}")

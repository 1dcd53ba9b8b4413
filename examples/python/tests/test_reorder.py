import pytest

from inventory import Order, Stock, orders


def test_only_what_is_below_its_minimum_is_ordered() -> None:
    stock = Stock()
    stock.receive("bolt", 5)
    stock.receive("nut", 20)
    assert orders(stock, {"nut": 20, "bolt": 8, "washer": 1}) == [
        Order("bolt", 3),
        Order("washer", 1),
    ]


def test_whole_packs_are_ordered() -> None:
    assert orders(Stock(), {"bolt": 11}, pack=5) == [Order("bolt", 15)]
    with pytest.raises(ValueError, match="at least one piece"):
        orders(Stock(), {}, pack=0)

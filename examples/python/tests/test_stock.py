import pytest

from inventory import OutOfStock, Stock


def test_what_is_received_is_free() -> None:
    stock = Stock()
    stock.receive("bolt", 5)
    stock.receive("bolt", 2)
    assert stock.free("bolt") == 7
    assert stock.free("nut") == 0


def test_a_reserved_amount_is_not_free_and_can_be_shipped() -> None:
    stock = Stock()
    stock.receive("bolt", 5)
    stock.reserve("bolt", 3)
    assert stock.free("bolt") == 2
    stock.ship("bolt", 3)
    assert stock.free("bolt") == 2


def test_all_that_is_free_can_be_reserved() -> None:
    stock = Stock()
    stock.receive("bolt", 5)
    stock.reserve("bolt", 5)
    assert stock.free("bolt") == 0


def test_nobody_gets_more_than_is_free() -> None:
    stock = Stock()
    stock.receive("bolt", 5)
    with pytest.raises(OutOfStock, match="bolt: 6 asked for, 5 free") as refused:
        stock.reserve("bolt", 6)
    assert (refused.value.article, refused.value.asked, refused.value.free) == ("bolt", 6, 5)
    with pytest.raises(OutOfStock):
        stock.ship("bolt", 1)


@pytest.mark.parametrize("amount", [0, -1])
def test_an_amount_is_positive(amount: int) -> None:
    stock = Stock()
    for change in (stock.receive, stock.reserve, stock.ship):
        with pytest.raises(ValueError, match="must be positive"):
            change("bolt", amount)

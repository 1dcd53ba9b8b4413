"""Stock of a warehouse: what is there, what is reserved, and what to order."""

from inventory.reorder import Order, orders
from inventory.stock import OutOfStock, Stock

__all__ = ["Order", "OutOfStock", "Stock", "orders"]

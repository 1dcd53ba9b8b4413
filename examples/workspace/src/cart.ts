import { add, money, type Money } from "./money.js";

export interface Line {
  readonly name: string;
  readonly price: Money;
  readonly quantity: number;
}

export type Discount =
  | { readonly kind: "percent"; readonly percent: number }
  | { readonly kind: "amount"; readonly amount: Money };

export function subtotal(lines: readonly Line[], currency = "EUR"): Money {
  return lines.reduce((sum, line) => {
    if (!Number.isInteger(line.quantity) || line.quantity < 1) {
      throw new RangeError(`${line.name}: quantity must be a positive integer`);
    }
    const cost = money(line.price.cents * line.quantity, line.price.currency);
    return add(sum, cost);
  }, money(0, currency));
}

/** The price after a discount, rounded in the buyer's favour and never below zero. */
export function discounted(price: Money, discount: Discount): Money {
  const reduction =
    discount.kind === "percent"
      ? Math.ceil((price.cents * discount.percent) / 100)
      : discount.amount.cents;
  return add(
    price,
    money(-Math.min(price.cents, reduction), price.currency),
  );
}

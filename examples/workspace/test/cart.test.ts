import { describe, expect, it } from "vitest";

import { discounted, subtotal } from "../src/cart.js";
import { money } from "../src/money.js";

describe("cart", () => {
  it("sums prices by quantity", () => {
    const lines = [
      { name: "Widget", price: money(1000), quantity: 2 },
      { name: "Gadget", price: money(250), quantity: 1 },
    ];
    expect(subtotal(lines)).toEqual(money(2250));
    expect(subtotal([])).toEqual(money(0));
  });

  it.each([0, -1, 1.5])("refuses a quantity of %s", (quantity) => {
    const line = { name: "Widget", price: money(1000), quantity };
    expect(() => subtotal([line])).toThrow("Widget: quantity");
  });

  it("rounds a percentage in the buyer's favour", () => {
    const third = { kind: "percent", percent: 33 } as const;
    expect(discounted(money(10), third)).toEqual(money(6));
    const half = { kind: "percent", percent: 50 } as const;
    expect(discounted(money(2000), half)).toEqual(money(1000));
  });

  it("never goes below zero", () => {
    const voucher = { kind: "amount", amount: money(500) } as const;
    expect(discounted(money(300), voucher)).toEqual(money(0));
  });
});

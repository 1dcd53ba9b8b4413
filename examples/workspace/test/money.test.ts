import { describe, expect, it } from "vitest";

import { add, allocate, format, money } from "../src/money.js";

describe("money", () => {
  it("refuses fractions of a cent", () => {
    expect(() => money(0.5)).toThrow(RangeError);
  });

  it("adds amounts of one currency only", () => {
    expect(add(money(150), money(50))).toEqual(money(200));
    expect(() => add(money(1), money(1, "USD"))).toThrow("cannot add USD");
  });

  it("loses no cent when it is shared", () => {
    expect(allocate(money(100), [1, 1, 1])).toEqual([
      money(34),
      money(33),
      money(33),
    ]);
    expect(allocate(money(7), [3, 1])).toEqual([money(6), money(1)]);
    expect(allocate(money(5), [1, 0])).toEqual([money(5), money(0)]);
  });

  it("refuses weights that cannot be shared by", () => {
    expect(() => allocate(money(1), [])).toThrow(RangeError);
    expect(() => allocate(money(1), [2, -1])).toThrow(RangeError);
  });

  it("is written with two decimals", () => {
    expect(format(money(1005))).toBe("10.05 EUR");
    expect(format(money(0))).toBe("0.00 EUR");
    expect(format(money(-50, "USD"))).toBe("-0.50 USD");
  });
});

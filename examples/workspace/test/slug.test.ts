import { describe, expect, it } from "vitest";

import { slug } from "../src/slug.js";

describe("slug", () => {
  it("joins words and drops accents", () => {
    expect(slug("  Crème Brûlée, 2 pieces! ")).toBe("creme-brulee-2-pieces");
  });

  it("cuts at the end of a word", () => {
    expect(slug("one two three", 9)).toBe("one-two");
  });

  it("refuses a name without letters or digits", () => {
    expect(() => slug("!?")).toThrow(RangeError);
  });
});

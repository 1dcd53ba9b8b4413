import { readFileSync } from "node:fs";
import type { PathLike } from "node:fs";

export type Shape =
  | { kind: "circle"; radius: number }
  | { kind: "square"; side: number };

interface Options {
  readonly verbose?: boolean;
}

const stars = /[/*]+/;
export default stars.source;

const TABLE = {
  one: 1,
  two: () => {
    return 2;
  },
  three: (a: number) =>
    a > 2
      ? "big"
      : "small",
};

export function area(shape: Shape, options: Options = {}): number {
  if (options.verbose) console.log;
  switch (shape.kind) {
    case "circle":
      return Math.PI * shape.radius ** 2;
    case "square": {
      return shape.side * shape.side;
    }
    default:
      throw new Error("unknown");
  }
}

export const both = (a: boolean) => { if (a) { return 1 } else { return 2 } };

export function chain(list: number[]): string {
  return list
    .filter((n) => n > 1)
    .map((n) => {
      // a comment
      const text = `${n}/*`;
      return text;
    })
    .join(",");
}

/* istanbul ignore next */
export function ignored(a: number): number {
  if (a > 1) {
    return a;
  }
  return 0;
}

export class Counter {
  static total = 0;
  #count = 0;

  constructor(private readonly step = 1) {
    Counter.total += 1;
  }

  next(): number {
    this.#count += this.step;
    return this.#count;
  }

  /* v8 ignore next 3 */
  get value(): number {
    return this.#count;
  }

  reset(): void {
    this.#count = 0;
  }
}

enum Color {
  Red,
  Green = "green".length,
}

export function color(name: string): Color {
  return name === "red" ? Color.Red : Color.Green;
}

export async function each(items: AsyncIterable<string>): Promise<string[]> {
  const found: string[] = [];
  for await (const item of items) found.push(item);
  return found;
}

export function load(path: PathLike): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  } finally {
    Counter.total += 0;
  }
}

export const never = () =>
  (
    [1, 2]
      .map((n) => n + 1)
  );

export function labels(n: number): number {
  outer: for (let i = 0; i < n; i++) {
    for (;;) {
      if (i > 2) break outer;
      break;
    }
  }
  let x = n; do x--; while (x > 0)
  return x;
}

(
  () => {
    TABLE.one += 1;
  }
)();

export function uncalled() {
  (
    () => TABLE.two()
  )();
  [
    1,
  ].forEach(() => 1);
}

// `nofx demo` adds this file to the sample workspace to show a failing gate: it compiles, but the linter rejects `any` and `==`.
export function blank(value: any): boolean {
  return value == null || value == "";
}

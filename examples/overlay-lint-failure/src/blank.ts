// Laid over the sample workspace to show a gate that refuses: it compiles, but the linter rejects `any` and `==`.
export function blank(value: any): boolean {
  return value == null || value == "";
}

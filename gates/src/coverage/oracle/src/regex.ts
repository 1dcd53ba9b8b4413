export default /[/*]+/;

export const after = () => {
  return 1;
};

export function slashes(a: number, b: string): boolean {
  if (a) /[/*]/.test(b);
  while (a--) /[/*"]/.test(b);
  const c = a++ / 2; // a comment /
  const d = a! / 2; /* and
  another */
  return (c) / d > 1 && !/'/.test(b);
}

export async function each(items: AsyncIterable<string>): Promise<void> {
  for await (const item of items) /[/*]x/.test(item);
}

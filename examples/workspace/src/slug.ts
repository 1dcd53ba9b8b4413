const MARKS = /\p{Mark}/gu;
const SEPARATORS = /[^a-z0-9]+/g;

/** A name as a part of a URL: lower case, ASCII, words joined by hyphens, cut at the end of a word. */
export function slug(name: string, maxLength = 60): string {
  const words = name
    .normalize("NFKD")
    .replace(MARKS, "")
    .toLowerCase()
    .split(SEPARATORS)
    .filter((word) => word !== "");
  let result = "";
  for (const word of words) {
    const longer = result === "" ? word : `${result}-${word}`;
    if (longer.length > maxLength) {
      break;
    }
    result = longer;
  }
  if (result === "") {
    throw new RangeError("a name needs a letter or a digit");
  }
  return result;
}

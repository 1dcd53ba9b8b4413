const MARKS = /\p{Mark}/gu;
const SEPARATORS = /[^a-z0-9]+/g;

/** A name as a part of an address: lower case, ASCII, words joined by hyphens, cut at a word's end. */
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

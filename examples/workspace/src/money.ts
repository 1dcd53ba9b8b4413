/** An amount of money in minor units (cents), so that sums are exact. */
export interface Money {
  readonly cents: number;
  readonly currency: string;
}

export function money(cents: number, currency = "EUR"): Money {
  if (!Number.isSafeInteger(cents)) {
    throw new RangeError(`not a whole number of cents: ${String(cents)}`);
  }
  return { cents, currency };
}

export function add(a: Money, b: Money): Money {
  if (a.currency !== b.currency) {
    throw new TypeError(`cannot add ${b.currency} to ${a.currency}`);
  }
  return money(a.cents + b.cents, a.currency);
}

/** Splits an amount into shares by weight. Remaining cents go to the first shares, so that the shares add up to the amount. */
export function allocate(total: Money, weights: readonly number[]): Money[] {
  const sum = weights.reduce((left, right) => left + right, 0);
  if (sum <= 0 || weights.some((weight) => weight < 0)) {
    throw new RangeError("weights must be positive");
  }
  const shares = weights.map((weight) =>
    Math.floor((total.cents * weight) / sum),
  );
  let rest = total.cents - shares.reduce((left, right) => left + right, 0);
  return shares.map((share) => {
    const extra = rest > 0 ? 1 : 0;
    rest -= extra;
    return money(share + extra, total.currency);
  });
}

export function format(amount: Money): string {
  const sign = amount.cents < 0 ? "-" : "";
  const cents = Math.abs(amount.cents);
  const fraction = String(cents % 100).padStart(2, "0");
  return `${sign}${String(Math.floor(cents / 100))}.${fraction} ${amount.currency}`;
}

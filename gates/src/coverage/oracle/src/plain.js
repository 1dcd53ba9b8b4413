'use strict';

const state = { on: false, list: [] };

/* c8 ignore next 3 */
function skipped() {
  return 'skipped';
}

function used(a, b = 2) {
  /* c8 ignore start */
  if (a === 'never') {
    return null;
  }
  /* c8 ignore stop */
  const c = a || b; /* istanbul ignore else */
  if (c) {
    state.on = true;
  } else {
    state.on = false;
  }
  return c ?
    'yes'
    : 'no';
}

function unused(x) {
  // never called
  if (x) { return 1 }

  return [
    x,
    () => {
      return x;
    },
  ];
}

module.exports = { used, unused, skipped };

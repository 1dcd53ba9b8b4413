"use strict";

// Moments in the reader's words, and a run that keeps itself up to date while it is open.

const SOON_MS = 2_000; // between two looks while something changes
const LATE_MS = 15_000; // while nothing does: a gate may wait for days
const RETRY_MOST_MS = 30_000; // while the server cannot be reached
const UNITS = [["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]];

const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

function inWords(then) {
  const seconds = Math.round((then - Date.now()) / 1_000);
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? UNITS.at(-1);
  return relative.format(Math.trunc(seconds / size), unit);
}

function localise() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const then = new Date(time.dateTime);
    if (Number.isNaN(then.getTime())) continue;
    const words = inWords(then);
    time.title = `${then.toLocaleString()} (${time.dateTime})`;
    if (time.textContent !== words) time.textContent = words;
  }
}

const regions = (root) => [...root.querySelectorAll("[data-region]")];

// Puts `fresh` in the place of `old`; what somebody is typing stays, and so does the cursor.
function replace(old, fresh) {
  const active = old.contains(document.activeElement) ? document.activeElement : null;
  const typed = [...old.querySelectorAll("input:not([type=hidden]), textarea")].filter((field) => field.value !== "");
  const selection = active && "selectionStart" in active ? [active.selectionStart, active.selectionEnd] : null;
  old.replaceWith(fresh);
  for (const field of typed) {
    const heir = document.getElementById(field.id);
    if (heir) heir.value = field.value;
  }
  const heir = active?.id ? document.getElementById(active.id) : null;
  heir?.focus({ preventScroll: true });
  if (heir && selection) heir.setSelectionRange(...selection);
}

function follow(live) {
  const announcer = document.getElementById("announcer");
  const url = live.dataset.fragment;
  // As the server sent them: what is in the page has been put into words since.
  const shown = new Map(regions(live).map((region) => [region.dataset.region, region.outerHTML]));
  let status = live.dataset.status;
  let wait = SOON_MS;

  function say(sentence) {
    if (announcer.textContent !== sentence) announcer.textContent = sentence;
  }

  // Whether anything changed, and whether the run is still open.
  function apply(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html").getElementById("live");
    if (!fresh) throw new Error("not the fragment of a run");
    let changed = false;
    for (const region of regions(fresh)) {
      const { region: name } = region.dataset;
      const old = live.querySelector(`[data-region="${name}"]`);
      if (!old || shown.get(name) === region.outerHTML) continue;
      shown.set(name, region.outerHTML);
      replace(old, region);
      changed = true;
    }
    if (fresh.dataset.status !== status) {
      document.title = document.title.replace(status, fresh.dataset.status);
      status = fresh.dataset.status;
      say(`The run is ${status}.`);
    }
    localise();
    return { changed, open: "fragment" in fresh.dataset };
  }

  async function look() {
    try {
      const answer = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(10_000) });
      if (answer.status === 404) return say("This run is gone.");
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const html = await answer.text();
      if (live.classList.contains("stale")) say("");
      live.classList.remove("stale");
      const { changed, open } = apply(html);
      if (!open) return;
      wait = changed ? SOON_MS : Math.min(wait * 1.5, LATE_MS);
    } catch {
      wait = Math.min(wait * 2, RETRY_MOST_MS);
      live.classList.add("stale");
      say("The server cannot be reached; trying again.");
    }
    setTimeout(next, wait);
  }

  // A page that nobody looks at asks nothing.
  function next() {
    if (!document.hidden) return void look();
    document.addEventListener("visibilitychange", () => { wait = SOON_MS; next(); }, { once: true });
  }

  setTimeout(next, wait);
}

const live = document.getElementById("live");
if (live && "fragment" in live.dataset) follow(live);
localise();
setInterval(localise, 15_000);

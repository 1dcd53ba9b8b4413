"use strict";

// Shows times relative to now, and refreshes the page of an open run.

const MIN_POLL_MS = 2_000; // while the run changes
const MAX_POLL_MS = 15_000; // while nothing changes: a gate may be pending for days
const MAX_RETRY_MS = 30_000; // while the server cannot be reached
const UNITS = [["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]];

const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

function relativeTime(then) {
  const seconds = Math.round((then - Date.now()) / 1_000);
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? UNITS.at(-1);
  return relative.format(Math.trunc(seconds / size), unit);
}

function localise() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const then = new Date(time.dateTime);
    if (Number.isNaN(then.getTime())) continue;
    const words = relativeTime(then);
    time.title = `${then.toLocaleString()} (${time.dateTime})`;
    if (time.textContent !== words) time.textContent = words;
  }
}

const regions = (root) => [...root.querySelectorAll("[data-region]")];

// Replaces `old` by `fresh`, and keeps typed text and the cursor.
function replace(old, fresh) {
  const active = old.contains(document.activeElement) ? document.activeElement : null;
  const typed = [...old.querySelectorAll("input:not([type=hidden]), textarea")].filter((field) => field.value !== "");
  const selection = active && "selectionStart" in active ? [active.selectionStart, active.selectionEnd] : null;
  old.replaceWith(fresh);
  for (const field of typed) {
    const replacement = document.getElementById(field.id);
    if (replacement) replacement.value = field.value;
  }
  const replacement = active?.id ? document.getElementById(active.id) : null;
  replacement?.focus({ preventScroll: true });
  if (replacement && selection) replacement.setSelectionRange(...selection);
}

function follow(live) {
  const announcer = document.getElementById("announcer");
  const url = live.dataset.fragment;
  // The regions as the server sent them. The page itself differs: its times are relative.
  const shown = new Map(regions(live).map((region) => [region.dataset.region, region.outerHTML]));
  let status = live.dataset.status;
  let wait = MIN_POLL_MS;

  function announce(sentence) {
    if (announcer.textContent !== sentence) announcer.textContent = sentence;
  }

  // Returns whether anything changed, and whether the run is still open.
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
      announce(`The run is ${status}.`);
    }
    localise();
    return { changed, open: "fragment" in fresh.dataset };
  }

  async function poll() {
    try {
      const response = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(10_000) });
      if (response.status === 404) return announce("This run no longer exists.");
      if (!response.ok) throw new Error(`status ${response.status}`);
      const html = await response.text();
      if (live.classList.contains("stale")) announce("");
      live.classList.remove("stale");
      const { changed, open } = apply(html);
      if (!open) return;
      wait = changed ? MIN_POLL_MS : Math.min(wait * 1.5, MAX_POLL_MS);
    } catch {
      wait = Math.min(wait * 2, MAX_RETRY_MS);
      live.classList.add("stale");
      announce("The server cannot be reached. Retrying.");
    }
    setTimeout(next, wait);
  }

  // A hidden page does not poll.
  function next() {
    if (!document.hidden) return void poll();
    document.addEventListener("visibilitychange", () => { wait = MIN_POLL_MS; next(); }, { once: true });
  }

  setTimeout(next, wait);
}

const live = document.getElementById("live");
if (live && "fragment" in live.dataset) follow(live);
localise();
setInterval(localise, 15_000);

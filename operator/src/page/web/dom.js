// Elements, and texts for numbers and times. Everything from objects of the cluster becomes a text node or the value of an
// attribute; no text is ever parsed as HTML, which the Content-Security-Policy of the page enforces (Trusted Types).

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === true) element.setAttribute(name, '');
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

// Creates an element of HTML. Children are elements and texts; null, undefined and false are left out.
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

// Creates an element of SVG.
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// Makes `old` equal to `fresh` and changes as little as possible, so that focus, selection and scroll position stay.
// Children with `data-key` keep their elements when others come or go.
export function patch(old, fresh) {
  if (old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return undefined;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  return patchChildren(old, [...fresh.childNodes]);
}

export function patchChildren(parent, fresh) {
  const keyed = new Map();
  for (const child of parent.children) if (child.dataset?.key) keyed.set(child.dataset.key, child);
  let next = parent.firstChild;
  for (const child of fresh) {
    const key = child.dataset?.key;
    const known = key ? keyed.get(key) : next?.dataset?.key ? undefined : next;
    if (!known) {
      parent.insertBefore(child, next);
    } else {
      if (known === next) next = known.nextSibling;
      else parent.insertBefore(known, next);
      patch(known, child);
    }
  }
  while (next) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
}

// 0.0012 as "0.12 %".
export const percent = (share) => `${Number((share * 100).toFixed(2))} %`;

// Basis points as a percentage.
export const weight = (parts) => percent(parts / 10000);

// A share of requests, or a dash where it is not known.
export const rate = (share) => (share == null ? '–' : percent(share));

// Evidence as odds, as messages of the operator write it.
export function odds(evidence) {
  if (evidence == null) return '–';
  if (evidence > 1e6) return `over 10^${Math.floor(Math.log10(evidence))} to 1`;
  return `${evidence < 10 ? evidence.toFixed(1) : Math.round(evidence)} to 1`;
}

// The time between two moments in one unit, as in kubectl.
export function age(since, now = Date.now()) {
  const seconds = Math.max(0, Math.floor((now - since) / 1000));
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86400)}d`;
}

const two = (number) => String(number).padStart(2, '0');

// Local time of day.
export function clock(at) {
  const time = new Date(at);
  return [time.getHours(), time.getMinutes(), time.getSeconds()].map(two).join(':');
}

// Local date and time of day.
export function moment(at) {
  const time = new Date(at);
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${clock(at)}`;
}

// A moment as an element that programs can read.
export const time = (at, text) => h('time', { datetime: new Date(at).toISOString(), title: moment(at) }, text);

export const count = (number, noun) => `${number} ${noun}${number === 1 ? '' : 's'}`;

// A word for a state, with a symbol, so that colour is not the only difference.
const SYMBOLS = { good: '✓', bad: '✕', attention: '!', running: '▸', plain: '·' };
export const badge = (word, kind) => h('span', { class: `badge ${kind}` }, h('span', { 'aria-hidden': 'true' }, SYMBOLS[kind]), word);

const KINDS = { Ready: 'good', Progressing: 'running', Paused: 'attention', RolledBack: 'bad', Failed: 'bad' };
export const phase = (word) => badge(word, KINDS[word] ?? 'plain');

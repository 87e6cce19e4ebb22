// The page: which view is shown, the lists of functions and nodes, and the connection to the replica.

import { age, h, patchChildren, phase, time } from './dom.js';
import { functionView } from './function.js';
import { STATES, nodeRows } from './nodes.js';

const PHASES = ['Failed', 'RolledBack', 'Paused', 'Progressing', 'Pending', 'Suspended', 'Ready'];
// The replica sends a comment every 15 s.
const SILENCE = 40000;
const MAX_DELAY = 15000;
// A hidden page ends its stream after this time, because streams are limited.
const HIDDEN = 30000;
const REREAD = 2000;

const main = document.getElementById('main');
const connection = document.getElementById('connection');
const footer = document.getElementById('footer');
const announcement = document.getElementById('announcement');
const views = document.querySelectorAll('#views a');

let route = { list: 'functions', query: new URLSearchParams() };
let data; // what the stream has sent
let failure; // sentence that is shown in place of data
let asks; // sentence above the field for the token, while a token is needed
let hasMoved = false; // whether the heading of the next view gets the focus
let stopped = new AbortController();
let token = sessionStorage.getItem('token') ?? '';
let width = 0;

// === Views

function render() {
  const now = Date.now();
  width = main.clientWidth;
  let content;
  if (asks) content = tokenView(asks);
  else if (failure) content = [h('h1', { tabindex: '-1' }, route.name ?? LISTS[route.list].title), h('p', { class: 'notice' }, failure)];
  else if (!data) content = [h('p', { class: 'empty' }, 'Loading …')];
  else content = route.name ? functionView(data, width, now) : listView(data, now);
  patchChildren(main, content.flat().filter((child) => child));
  const heading = hasMoved && main.querySelector('h1');
  if (heading) { hasMoved = false; heading.focus({ preventScroll: true }); }
  document.title = route.name ? `${data?.row ? `${data.row.phase} · ` : ''}${route.name} · Selvage` : LISTS[route.list].page;
  for (const link of views) patchCurrent(link, link.hash === LISTS[route.list].hash);
  if (data?.replica) patchChildren(footer, [h('p', null, `Shown by the replica ${data.replica}. This page is read-only.`)]);
}

const href = (changes) => {
  const query = new URLSearchParams(route.query);
  for (const [name, value] of Object.entries({ from: '', ...changes })) value ? query.set(name, value) : query.delete(name);
  const { hash } = LISTS[route.list];
  return query.size ? `${hash}?${query}` : hash;
};

function patchCurrent(link, isCurrent) {
  if (isCurrent) link.setAttribute('aria-current', route.name ? 'true' : 'page');
  else link.removeAttribute('aria-current');
}

function listView(list, now) {
  const { title, filter, words, label, placeholder, noun, table } = LISTS[route.list];
  const chosen = route.query.get(filter);
  const all = Object.values(list.counts).reduce((sum, one) => sum + one, 0);
  const tab = (word, number) => h('a', { href: href({ [filter]: word }), 'aria-current': (chosen ?? '') === word && 'true' }, word || 'All', h('span', null, String(number)));
  const last = list.from + list.rows.length;
  return [
    h('h1', { tabindex: '-1' }, title),
    h('form', { role: 'search', id: 'search', 'data-key': `search ${title}` },
      h('label', null, h('span', { class: 'unseen' }, label), h('input', { type: 'search', name: 'text', placeholder, value: route.query.get('text') ?? '', autocomplete: 'off', spellcheck: 'false' }))),
    h('nav', { class: 'tabs', 'aria-label': words === PHASES ? 'Phases' : 'States' }, tab('', all), words.filter((word) => list.counts[word] || word === chosen).map((word) => tab(word, list.counts[word] ?? 0))),
    list.rows.length === 0 ? h('p', { class: 'empty' }, all ? `No ${noun} matches.` : `There are no ${noun}s.`) : table(list.rows, now),
    list.total > list.size && h('nav', { class: 'pages', 'aria-label': 'Pages' },
      list.from > 0 && h('a', { href: href({ from: Math.max(0, list.from - list.size) || '' }) }, '← previous'),
      h('span', null, `${list.from + 1} to ${last} of ${list.total}`),
      last < list.total && h('a', { href: href({ from: list.from + list.size }) }, 'next →')),
  ];
}

const COLUMNS = ['Function', 'Phase', 'Stable', 'Candidate', 'Weight', 'Step', 'Verdict', 'Age'];

// The roles stay when narrow screens show rows as blocks.
const rows = (list, now) =>
  h('table', { class: 'list', role: 'table', 'aria-label': 'Functions' },
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, COLUMNS.map((name) => h('th', { role: 'columnheader', scope: 'col' }, name)))),
    h('tbody', { role: 'rowgroup' }, list.map((row) => {
      const cell = (name, ...content) => h('td', { role: 'cell', class: name }, content);
      return h('tr', { role: 'row', 'data-key': `${row.namespace}/${row.name}`, class: row.attention },
        cell('name', h('a', { href: `#/${row.namespace}/${row.name}` }, h('span', { class: 'namespace' }, `${row.namespace}/`), row.name)),
        cell('phase', phase(row.phase)), cell('revision', row.stable), cell('revision', row.candidate), cell('weight', row.weight),
        cell('step', row.step), cell('verdict', row.verdict), cell('age', row.created ? time(row.created, age(row.created, now)) : ''));
    })));

// What differs between the two lists. `filter` is the field of a row and of the query that the tabs choose.
const LISTS = {
  functions: { title: 'Functions', page: 'Selvage', hash: '#/', path: 'functions', stream: 'streams', filter: 'phase', words: PHASES, noun: 'function', label: 'Part of NAMESPACE/NAME', placeholder: 'namespace/name', table: rows },
  nodes: { title: 'Nodes', page: 'Nodes · Selvage', hash: '#/nodes', path: 'nodes', stream: 'streams/nodes', filter: 'state', words: STATES, noun: 'node', label: 'Part of the name', placeholder: 'name', table: nodeRows },
};

const tokenView = (why) => [
  h('h1', { tabindex: '-1' }, 'Token'),
  h('p', null, why),
  h('form', { id: 'token', 'data-key': 'token' }, h('label', null, 'Token ', h('input', { type: 'password', name: 'token', autocomplete: 'off', required: true, autofocus: true })), ' ', h('button', null, 'Open')),
];

// === Changes

// Rows that are shown stay in their places; new ones that need attention come to theirs.
function change(list, { counts, rows: changed, gone }) {
  const { filter } = LISTS[route.list];
  const key = (row) => (row.namespace ? `${row.namespace}/${row.name}` : row.name);
  const places = new Map(list.rows.map((row, index) => [key(row), index]));
  list.counts = counts;
  const text = route.query.get('text')?.trim().toLowerCase() ?? '';
  const wanted = route.query.get(filter);
  for (const row of changed) {
    const at = places.get(key(row));
    if (at !== undefined && list.rows[at].state !== row.state) announcement.textContent = `${row.name}: ${row.state}.`;
    if (at !== undefined) list.rows[at] = row;
    else if (list.from === 0 && key(row).includes(text) && (!wanted || row[filter] === wanted)) insert(list, row);
  }
  const lost = new Set(gone.map((parts) => parts.join('/')));
  list.rows = list.rows.filter((row) => !lost.has(key(row)));
  if (!text) list.total = wanted ? (counts[wanted] ?? 0) : Object.values(counts).reduce((sum, one) => sum + one, 0);
}

function insert(list, row) {
  const before = list.rows.findIndex((other) => other.order > row.order);
  if (before < 0 && list.rows.length >= list.size) return;
  list.rows.splice(before < 0 ? list.rows.length : before, 0, row);
  list.rows.length = Math.min(list.rows.length, list.size);
}

let reread;
function handle(kind, text) {
  const sent = JSON.parse(text);
  if (kind === 'many') {
    reread ??= setTimeout(() => { reread = undefined; follow(); }, REREAD);
    return;
  }
  failure = undefined;
  if (kind === 'list') data = sent;
  else if (kind === 'changes' && data) change(data, sent);
  else if (kind === 'gone') failure = `The function ${route.namespace}/${route.name} does not exist.`;
  else if (kind === 'function') {
    if (data?.row && (data.row.phase !== sent.row.phase || data.rollout?.state !== sent.rollout?.state)) announcement.textContent = `${sent.row.name}: ${sent.row.phase}. ${sent.message}`;
    data = sent;
  }
  render();
}

// === Connection

function connect(word, kind) {
  connection.textContent = word;
  connection.className = `connection ${kind}`;
}

function paths() {
  const { path, stream } = LISTS[route.list];
  if (!route.name) return [`api/${path}?${route.query}`, `api/${stream}?${route.query}`, 'list'];
  const name = `${encodeURIComponent(route.namespace)}/${encodeURIComponent(route.name)}`;
  return [`api/functions/${name}`, `api/streams/${name}`, 'function'];
}

async function request(path, signal) {
  const response = await fetch(path, { headers: token ? { authorization: `Bearer ${token}` } : {}, signal, cache: 'no-store' });
  if (response.ok) return response;
  const sent = await response.json().catch(() => ({}));
  throw Object.assign(new Error(sent.error ?? `The replica answered ${response.status}.`), { status: response.status });
}

// Reads a stream until it ends.
async function read(path, signal) {
  const silence = new AbortController();
  const response = await request(path, AbortSignal.any([signal, silence.signal]));
  connect('live', 'good');
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const timer = setTimeout(() => silence.abort(), SILENCE);
    const { done, value } = await reader.read().finally(() => clearTimeout(timer));
    if (done) return;
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const field = (name) => block.split('\n').find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (field('event')) handle(field('event'), field('data'));
    }
  }
}

const pause = (time, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, time);
  signal.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
});

// Follows what the route shows until the next call. Without a stream, the data is read once for each attempt.
async function follow() {
  if (asks) return undefined;
  stopped.abort();
  stopped = new AbortController();
  const { signal } = stopped;
  const [once, stream, kind] = paths();
  let delay = 1000;
  while (!signal.aborted) {
    try {
      await read(stream, signal);
      delay = 1000;
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401) {
        asks = token ? 'This token is not the one of the page.' : error.message;
        connect('no token', 'bad');
        return render();
      }
      if (error.status === 503) {
        try {
          handle(kind, await (await request(once, signal)).text());
        } catch (other) {
          if (!data && !signal.aborted) { failure = other.message; render(); }
        }
      } else if (error.status && !data) {
        failure = error.message;
        render();
      }
      connect(error.status === 503 ? 'not live; reading again' : 'no connection; trying again', 'attention');
      delay = Math.min(delay * 2, MAX_DELAY);
    }
    await pause(delay * (0.75 + Math.random() / 2), signal);
  }
}

// === Navigation

function navigate(first) {
  // the path /nodes is the list of nodes, until a link is followed
  const shown = location.hash || (location.pathname.endsWith('/nodes') ? LISTS.nodes.hash : '');
  const [path, query] = shown.replace(/^#\/?/, '').split('?');
  const [namespace, name] = path.split('/').map(decodeURIComponent);
  const list = namespace === 'nodes' && !name ? 'nodes' : 'functions';
  const next = { list, namespace, name, query: new URLSearchParams(name ? '' : query) };
  const isSamePlace = next.namespace === route.namespace && next.name === route.name;
  route = next;
  failure = undefined;
  if (!isSamePlace || first) data = undefined;
  if (data) { const field = main.querySelector('#search input'); if (field && field !== document.activeElement) field.value = route.query.get('text') ?? ''; }
  render();
  if (!first && !isSamePlace) { hasMoved = true; scrollTo(0, 0); }
  follow();
}

addEventListener('hashchange', () => navigate(false));

let typed;
main.addEventListener('input', (event) => {
  if (event.target.name !== 'text') return;
  clearTimeout(typed);
  typed = setTimeout(() => { history.replaceState(null, '', href({ text: event.target.value.trim() })); navigate(false); }, 250);
});

main.addEventListener('submit', (event) => {
  event.preventDefault();
  if (event.target.id !== 'token') return;
  token = new FormData(event.target).get('token').trim();
  sessionStorage.setItem('token', token);
  asks = undefined;
  navigate(true);
});

let hidden;
document.addEventListener('visibilitychange', () => {
  clearTimeout(hidden);
  if (document.hidden) hidden = setTimeout(() => { stopped.abort(); connect('paused while hidden', 'plain'); }, HIDDEN);
  else if (stopped.signal.aborted) follow();
});

new ResizeObserver(() => { if (main.clientWidth !== width) render(); }).observe(main);

// Ages and the right ends of charts move on without a change.
setInterval(() => { if (data && !document.hidden) render(); }, 10000);

navigate(true);

// The view of one function.

import { evidenceChart, extent, meaning, rateChart, weightChart } from './charts.js';
import { age, badge, clock, count, h, moment, odds, percent, phase, rate, time, weight } from './dom.js';

// Distance between two charts and the padding of each, as in page.css.
const GAP = 16;
const PADDING = 16;

const table = (name, head, rows) =>
  h(
    'div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': name },
    h('table', null, h('thead', null, h('tr', null, head.map((cell) => h('th', { scope: 'col' }, cell)))),
      h('tbody', null, rows.map((cells) => h('tr', null, cells.map((cell) => h('td', { class: typeof cell === 'string' && cell.length > 40 && 'text' }, cell)))))),
  );

const section = (title, ...content) => h('section', { 'data-key': title }, h('h2', null, title), content);

export function functionView(view, width, now) {
  const { row } = view;
  return [
    h('p', { class: 'crumbs' }, h('a', { href: '#/' }, 'Functions'), ' / ', row.namespace),
    h('h1', { tabindex: '-1' }, row.name, ' ', phase(row.phase)),
    view.message && h('p', { class: 'message' }, view.message, view.command && [': ', h('code', null, view.command)]),
    view.urls.length > 0 && h('p', { class: 'urls' }, view.urls.flatMap((url, index) => [index > 0 && ' · ', h('code', null, url)])),
    section('Revisions', revisions(view, now)),
    view.rollout?.isRunning && section('Rollout', rollout(view, now)),
    charts(view, width, now),
    view.evidence?.metrics.length > 0 && section('Measurements', measurements(view)),
    section('Nodes', nodes(view, now)),
    view.conditions.length > 0 && section('Conditions', conditions(view, now)),
    view.timeline.length > 0 && section(view.rollout.isRunning ? 'This rollout' : 'Last rollout', timeline(view)),
    section('History', history(view)),
  ];
}

const ROLES = { stable: 'good', candidate: 'running', rejected: 'bad', previous: 'plain' };

function revisions(view, now) {
  if (view.revisions.length === 0) return h('p', { class: 'empty' }, 'No revision is served yet.');
  const row = (it) => [
    badge(it.role, ROLES[it.role]), h('code', null, it.name), it.weight == null ? '' : weight(it.weight),
    it.created ? time(it.created, age(it.created, now)) : '', it.source ? h('code', null, it.source) : '', it.note,
  ];
  return table('Revisions', ['Role', 'Revision', 'Weight', 'Age', 'Image', 'Nodes'], view.revisions.map(row));
}

function rollout(view, now) {
  const it = view.rollout;
  const attempt = it.attempt > 1 ? `, attempt ${it.attempt}` : '';
  const since = it.since ? `, for ${age(it.since, now)}` : '';
  const progress = view.evidence?.progress;
  return [
    h('p', null, h('strong', null, `${it.kind} ${it.state}`), ` at ${view.row.weight || '0%'}${attempt}${since}`),
    it.steps.length > 0 && h('ol', { class: 'steps' }, it.steps.map((step) =>
      h('li', { class: step.state, 'aria-current': step.state === 'current' && 'step' }, step.name, h('span', { class: 'unseen' }, ` ${step.state}`)))),
    it.paused && h('p', { class: 'notice' }, `Paused ${it.paused}. The weight does not rise; rollbacks continue.`),
    it.held && h('p', { class: 'notice' }, `The operator holds the weight (${it.held}).`),
    it.stoppedSince && h('p', { class: 'notice' }, `Its clocks stand still since ${moment(it.stoppedSince)}.`),
    it.waitsFor.length > 0 && h('p', null, 'Waits for ', it.waitsFor.flatMap((one, index) => [index > 0 && '; ', h('strong', null, one.word), ` (${one.meaning})`]), '.'),
    progress && [
      h('label', { class: 'progress' },
        `${percent(progress.share)} of the evidence for ${it.state === 'Baking' ? 'the end of the bake' : 'the next step'}`,
        progress.limitingMetric && ` (${progress.limitingMetric})`,
        progress.remainingRequests != null && `, about ${count(progress.remainingRequests, 'more request')}`,
        h('progress', { max: 1, value: Math.min(1, progress.share) })),
    ],
  ];
}

function charts(view, width, now) {
  const range = extent(view, now);
  if (!range) return undefined;
  const columns = width >= 800 ? 2 : 1;
  const each = Math.max(240, Math.floor((width - GAP * (columns - 1)) / columns - 2 * PADDING - 2));
  const drawn = view.evidence?.metrics.filter((metric) => view.chart.metrics.includes(metric.name)) ?? [];
  return section('Charts',
    h('div', { class: 'charts' },
      weightChart(view, each, range),
      view.evidence?.combined != null && evidenceChart(view, each, range),
      drawn.map((metric) => rateChart(view, metric, each, range))),
    h('p', { class: 'note' }, origin(view)));
}

// Says what the charts cannot show.
function origin(view) {
  const first = view.chart.points[0]?.at;
  const weights = 'Weights are those of the steps in the status.';
  if (first == null) return `${weights} The replica ${view.replica} has not watched this rollout, so it has no evidence and no rates over time.`;
  return `${weights} Evidence and rates are shown since the replica ${view.replica} started watching this rollout, at ${clock(first)}.`;
}

function measurements(view) {
  const it = view.evidence;
  const counted = (role, counts) => counts && `${role}: ${count(counts.requests, 'request')}, ${counts.errors} failed (${rate(counts.requests ? counts.errors / counts.requests : null)})`;
  const facts = [counted('candidate', it.candidate), counted('stable', it.stable), it.coverage && `coverage ${it.coverage}`, it.source && `source ${it.source}`, count(it.evaluations, 'evaluation')];
  const decisive = it.decisive;
  return [
    decisive && h('p', { class: 'notice' }, `Evaluation ${decisive.evaluation ?? 0} decided by ${decisive.metric}: in the last two evaluations, ${decisive.candidate ?? 'unknown'} of the candidate and ${decisive.stable ?? 'unknown'} of stable. The evidence reached ${odds(decisive.evidence)}, and the limit is ${odds(it.limit)}.`),
    h('p', null, `${odds(it.combined)} against the candidate; rollback at ${odds(it.limit)}.`),
    table('Measurements', ['Metric', 'Evidence', 'Candidate', 'Stable', 'Tolerance', 'Counts'], it.metrics.map((metric) => [
      h('code', null, metric.name), odds(metric.evidence), rate(metric.candidate), rate(metric.stable), metric.tolerance ?? '', meaning(metric.name)])),
    h('p', { class: 'note' }, facts.filter(Boolean).join(' · ')),
    it.dominantNode && h('p', null, `More than half of the candidate's requests are those of ${it.dominantNode}.`),
  ];
}

function nodes(view, now) {
  const it = view.nodes;
  if (!it) return h('p', { class: 'empty' }, 'No node has reported yet.');
  const exceptions = it.exceptions ?? [];
  return [
    h('p', null, `${it.applied} of ${it.desired} nodes serve the current weights.`, it.loaded < it.desired && ` ${it.loaded} have loaded every revision.`, it.failed > 0 && ` ${it.failed} cannot load one.`),
    exceptions.length > 0 && table('Nodes', ['Node', 'Since', 'Revision', 'Reason', 'Message'], exceptions.map((one) => [
      one.node, one.since ? age(Date.parse(one.since), now) : '', h('code', null, one.revision), one.reason, one.message ?? ''])),
  ];
}

const conditions = (view, now) =>
  table('Conditions', ['Condition', 'Since', 'Reason', 'Message'], view.conditions.map((one) => [badge(one.name, 'bad'), age(one.since, now), one.reason, one.message]));

const timeline = (view) => [
  h('ol', { class: 'timeline' }, view.timeline.map((entry) => h('li', null, time(entry.at, moment(entry.at)), h('span', null, entry.text)))),
  h('p', { class: 'note' }, `From the status. Events: kubectl -n ${view.row.namespace} describe ef ${view.row.name}`),
];

const OUTCOMES = { Promoted: 'good', RolledBack: 'bad', Aborted: 'bad' };

function history(view) {
  if (view.history.length === 0) return h('p', { class: 'empty' }, 'No rollout has ended yet.');
  const row = (it) => [
    it.finished ? time(it.finished, moment(it.finished)) : '', h('code', null, it.revision), it.attempt, badge(it.outcome, OUTCOMES[it.outcome] ?? 'attention'),
    it.reason, it.weight == null ? '' : weight(it.weight), it.started && it.finished ? age(it.started, it.finished) : '', it.by, it.message,
  ];
  return table('History', ['Ended', 'Revision', 'Attempt', 'Outcome', 'Reason', 'Weight', 'Took', 'By', 'Message'], view.history.map(row));
}

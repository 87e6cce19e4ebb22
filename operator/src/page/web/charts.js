// Charts as SVG: weight, evidence, and the rates of both revisions with the band of tolerated increases.

import { clock, h, moment, odds, percent, rate, s, weight } from './dom.js';

const HEIGHT = 190;
const AREA = { left: 52, right: 12, top: 12, bottom: 26 };
const DAY = 86400000;

// Draws axes around `content(x, y)`. `ticks` are pairs of value and text, `extent` is the first and last moment.
function frame(width, extent, ticks, y, label, content) {
  const [from, to] = extent;
  const right = width - AREA.right;
  const x = (at) => AREA.left + ((at - from) / Math.max(1, to - from)) * (right - AREA.left);
  const text = (at) => (to - from > DAY ? moment(at).slice(5, 16) : clock(at));
  const grid = ticks.map(([value, name]) => [
    s('line', { class: 'grid', x1: AREA.left, x2: right, y1: y(value), y2: y(value) }),
    s('text', { class: 'tick', x: AREA.left - 6, y: y(value) + 4, 'text-anchor': 'end' }, name),
  ]);
  const bottom = HEIGHT - 8;
  return s(
    'svg',
    { role: 'img', 'aria-label': label, width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}` },
    grid,
    s('text', { class: 'tick', x: AREA.left, y: bottom }, text(from)),
    s('text', { class: 'tick', x: right, y: bottom, 'text-anchor': 'end' }, text(to)),
    content(x),
  );
}

const linear = (max) => (value) => HEIGHT - AREA.bottom - (value / max) * (HEIGHT - AREA.bottom - AREA.top);

const place = ([px, py]) => `${px.toFixed(1)} ${py.toFixed(1)}`;
const path = (points) => (points.length ? `M${points.map(place).join('L')}` : '');

// A line through the points, with a mark at the last one.
const line = (kind, points) => [
  s('path', { class: `line ${kind}`, d: path(points) }),
  points.length > 0 && s('circle', { class: `mark ${kind}`, cx: points.at(-1)[0].toFixed(1), cy: points.at(-1)[1].toFixed(1), r: 3.5 }),
];

// A round number that is not less than `value`.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((round) => round >= value * 0.999);
}

const figure = (title, value, legend, drawing, note) =>
  h('figure', { class: 'chart', 'data-key': title }, h('figcaption', null, h('span', null, title), h('strong', null, value)), drawing, legend, note && h('p', { class: 'note' }, note));

// First and last moment of the charts of a function.
export function extent(view, now) {
  const { weights, points } = view.chart;
  const from = Math.min(weights[0]?.[0] ?? Infinity, points[0]?.at ?? Infinity);
  const last = Math.max(weights.at(-1)?.[0] ?? -Infinity, points.at(-1)?.at ?? -Infinity);
  if (!Number.isFinite(from)) return undefined;
  return [from, Math.max(view.rollout?.isRunning ? now : last, from + 1000)];
}

export function weightChart(view, width, range) {
  const { weights } = view.chart;
  const last = weights.at(-1)?.[1] ?? 0;
  const max = Math.min(10000, roundUp(Math.max(100, ...weights.map(([, parts]) => parts)) * 1.1));
  const y = linear(max);
  const label = `Weight of the candidate: ${weights.map(([at, parts]) => `${weight(parts)} from ${clock(at)}`).join(', ')}`;
  const drawing = frame(width, range, [0, max / 2, max].map((value) => [value, weight(value)]), y, label, (x) => {
    const steps = weights.flatMap(([at, parts], index) => {
      const until = weights[index + 1]?.[0] ?? range[1];
      return [[x(at), y(parts)], [x(until), y(parts)]];
    });
    const base = steps.length ? [...steps, [steps.at(-1)[0], y(0)], [steps[0][0], y(0)]] : [];
    return [s('path', { class: 'area candidate', d: path(base) }), line('candidate', steps)];
  });
  return figure('Weight of the candidate', weight(last), null, drawing);
}

export function evidenceChart(view, width, range) {
  const { limit, combined } = view.evidence;
  const points = view.chart.points.filter((point) => point.evidence != null);
  const lowest = -1;
  const top = Math.log10(limit) + 0.5;
  const y = (value) => {
    const share = (Math.min(Math.max(Math.log10(Math.max(value, 1e-9)), lowest), top) - lowest) / (top - lowest);
    return HEIGHT - AREA.bottom - share * (HEIGHT - AREA.bottom - AREA.top);
  };
  const label = `Evidence against the candidate: ${odds(combined)}, rollback at ${odds(limit)}`;
  const ticks = [[0.1, '0.1'], [1, '1'], [10, '10'], [limit, String(Math.round(limit))]].filter(([value]) => value <= limit);
  const drawing = frame(width, range, ticks, y, label, (x) => [
    s('rect', { class: 'beyond', x: AREA.left, y: AREA.top, width: width - AREA.left - AREA.right, height: y(limit) - AREA.top }),
    s('line', { class: 'limit', x1: AREA.left, x2: width - AREA.right, y1: y(limit), y2: y(limit) }),
    s('text', { class: 'limit-name', x: AREA.left + 6, y: y(limit) + 15 }, `rollback at ${odds(limit)}`),
    line('evidence', points.map((point) => [x(point.at), y(point.evidence)])),
  ]);
  return figure('Evidence against the candidate', odds(combined), null, drawing, 'The scale is logarithmic, because evidence multiplies.');
}

// What a metric counts.
export function meaning(name) {
  const [kind, bound] = name.split('/');
  if (kind === 'errors') return 'Failed requests';
  if (kind === 'clientErrors') return 'Requests answered with 4xx';
  if (kind === 'latency') return `Requests slower than ${bound}`;
  return `Requests that missed ${name}`;
}

export function rateChart(view, metric, width, range) {
  const index = view.chart.metrics.indexOf(metric.name);
  const points = view.chart.points.filter((point) => point.rates[index]).map((point) => [point.at, ...point.rates[index]]);
  const increase = metric.toleratedIncrease ?? 0;
  const highest = Math.max(0.0005, ...points.map(([, candidate, stable]) => Math.max(candidate, stable + increase)));
  const max = Math.min(1, roundUp(highest * 1.1));
  const y = linear(max);
  const label = `${meaning(metric.name)}: candidate ${rate(metric.candidate)}, stable ${rate(metric.stable)}, tolerance ${metric.tolerance ?? 'none'}`;
  const drawing = frame(width, range, [0, max / 2, max].map((value) => [value, percent(value)]), y, label, (x) => {
    const upper = points.map(([at, , stable]) => [x(at), y(Math.min(max, stable + increase))]);
    const lower = points.map(([at, , stable]) => [x(at), y(stable)]);
    return [
      s('path', { class: 'band', d: path([...upper, ...lower.toReversed()]) }),
      line('stable', lower),
      line('candidate', points.map(([at, candidate]) => [x(at), y(candidate)])),
    ];
  });
  const key = (kind, text) => h('span', { class: `key ${kind}` }, text);
  const legend = h('p', { class: 'legend' }, key('candidate', `candidate ${rate(metric.candidate)}`), key('stable', `stable ${rate(metric.stable)}`), key('band', `tolerated ${metric.tolerance ?? 'increase'}`));
  return figure(meaning(metric.name), rate(metric.candidate), legend, drawing);
}

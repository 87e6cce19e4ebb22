// The rows of the list of nodes.

import { age, badge, h, time } from './dom.js';

export const STATES = ['NoContact', 'NotReady', 'HasProblems', 'Loading', 'Unknown', 'Serving'];

const KINDS = { NoContact: 'bad', NotReady: 'bad', HasProblems: 'attention', Loading: 'running', Serving: 'good' };
// Marks of rows, as those of functions with the same urgency.
const MARKS = { NoContact: 'stalled', NotReady: 'stalled', HasProblems: 'waits', Loading: 'runs' };
// States whose begin is known: the condition `Ready` has changed with them.
const DATED = ['NoContact', 'NotReady', 'Serving'];
const COLUMNS = ['Node', 'State', 'Contact', 'Functions', 'Version', 'Region / zone', 'Problems'];

function contact(row, now) {
  if (row.state === 'Unknown') return '';
  if (row.state !== 'NoContact') return 'connected';
  return row.lastContact ? time(row.lastContact, `${age(row.lastContact, now)} ago`) : 'none';
}

const functions = (row) => `${row.loaded}/${row.desired} loaded${row.failed ? `, ${row.failed} failed` : ''}`;

function problems(row) {
  const shown = row.problems.map((it) => {
    const name = `${it.namespace}/${it.function}`;
    const message = it.message ? `: ${it.message}` : '';
    return h('li', { 'data-key': `${name}/${it.revision}/${it.reason}` }, it.function ? h('a', { href: `#/${name}` }, name) : 'node', ` ${it.reason}${message}`);
  });
  const more = row.problemCount - row.problems.length;
  return shown.length > 0 && h('ul', { class: 'problems' }, shown, more > 0 && h('li', null, `and ${more} more`));
}

// The roles stay when narrow screens show rows as blocks.
export const nodeRows = (list, now) =>
  h('table', { class: 'list', role: 'table', 'aria-label': 'Nodes' },
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, COLUMNS.map((name) => h('th', { role: 'columnheader', scope: 'col' }, name)))),
    h('tbody', { role: 'rowgroup' }, list.map((row) => {
      const cell = (name, ...content) => h('td', { role: 'cell', class: name }, content);
      return h('tr', { role: 'row', 'data-key': row.name, class: MARKS[row.state] },
        cell('name', row.name), cell('phase', badge(row.state, KINDS[row.state] ?? 'plain'), row.since && DATED.includes(row.state) ? [' ', time(row.since, age(row.since, now))] : ''),
        cell('contact', contact(row, now)), cell('weight', functions(row)), cell('revision', row.version), cell('step', row.place), cell('verdict', problems(row)));
    })));

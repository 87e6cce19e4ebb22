// Converts amounts of money. The configuration has the rates, so a new rate needs no new build; the variable BASE names
// the currency in which they are given.
//
//   GET  /convert?amount=12.50&to=USD      one amount
//   POST /convert?to=USD                   a list of amounts as JSON
//   GET  /published?by=bank                the rates that a server publishes; `server.bank` in the configuration is its URL
//
// Code outside of functions runs when the component is built. Environment and configuration exist only in a request.
import { getEnvironment } from 'wasi:cli/environment@0.2.10';
import { get } from 'wasi:config/store@0.2.0-rc.1';

addEventListener('fetch', (event) => event.respondWith(respond(event.request)));

async function respond(request) {
  const url = new URL(request.url);
  if (url.pathname === '/published') return published(url.searchParams.get('by') ?? '');
  if (url.pathname !== '/convert') return error(404, `there is no ${url.pathname}`);
  const to = url.searchParams.get('to') ?? '';
  const rate = Number(get(`rate.${to}`));
  if (!rate) return error(404, `there is no rate for "${to}"`);
  const from = variable('BASE') ?? 'EUR';
  const converted = (amount) => ({ amount, from, to, converted: Math.round(amount * rate * 100) / 100 });

  switch (request.method) {
    case 'GET': {
      const amount = Number(url.searchParams.get('amount') ?? NaN);
      return isAmount(amount) ? Response.json(converted(amount)) : error(400, 'amount is not a number');
    }
    case 'POST': {
      const amounts = await request.json().catch(() => undefined);
      if (!Array.isArray(amounts) || !amounts.every(isAmount)) return error(400, 'the body is not a list of numbers');
      return Response.json(amounts.map(converted));
    }
    default:
      return error(405, `${request.method} is not supported`);
  }
}

async function published(name) {
  const server = get(`server.${name}`);
  if (!server) return error(404, `there is no server "${name}"`);
  try {
    const response = await fetch(server);
    return Response.json(await response.json(), { status: response.status });
  } catch (cause) {
    // the server does not answer with JSON, or `spec.egress.allow` does not allow it
    return error(502, `${server}: ${cause.message}`);
  }
}

const isAmount = (value) => typeof value === 'number' && Number.isFinite(value);

const variable = (name) => getEnvironment().find(([key]) => key === name)?.[1];

const error = (status, message) => Response.json({ error: message }, { status });

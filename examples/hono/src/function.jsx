// A shop: pages and an API of one Hono app, rendered on the node. The variable SHOP is its name, and the configuration
// `currency` the currency of its prices.
import { Hono } from 'hono';
import { validator } from 'hono/validator';
import { getEnvironment } from 'wasi:cli/environment@0.2.10';
import { get } from 'wasi:config/store@0.2.0-rc.1';
import { products } from './products.js';
import { Catalogue, Missing } from './pages.jsx';

const app = new Hono();

// environment and configuration exist only in a request
app.use(async (context, next) => {
  const variable = (name) => getEnvironment().find(([key]) => key === name)?.[1];
  context.set('shop', { name: variable('SHOP') ?? 'Shop', currency: get('currency') ?? 'EUR' });
  await next();
});

app.get('/', (context) => context.html(<Catalogue shop={context.get('shop')} products={products} />));

app.get('/products/:sku', (context) => {
  const product = products.find(({ sku }) => sku === context.req.param('sku'));
  return product ? context.json({ ...product, ...context.get('shop') }) : context.notFound();
});

const isOrder = (lines) =>
  Array.isArray(lines) && lines.every(({ sku, quantity }) => typeof sku === 'string' && Number.isInteger(quantity) && quantity > 0);

app.post(
  '/orders',
  validator('json', (lines, context) =>
    isOrder(lines) ? lines : context.json({ error: 'the body is not a list of {"sku", "quantity"}' }, 400),
  ),
  (context) => {
    const lines = context.req.valid('json');
    const prices = new Map(products.map(({ sku, price }) => [sku, price]));
    const unknown = lines.filter(({ sku }) => !prices.has(sku));
    if (unknown.length > 0) return context.json({ error: `there is no ${unknown[0].sku}` }, 404);
    const cents = lines.reduce((sum, { sku, quantity }) => sum + prices.get(sku) * quantity, 0);
    return context.json({ total: (cents / 100).toFixed(2), currency: context.get('shop').currency }, 201);
  },
);

app.notFound((context) => context.html(<Missing shop={context.get('shop')} path={context.req.path} />, 404));

addEventListener('fetch', (event) => event.respondWith(app.fetch(event.request)));

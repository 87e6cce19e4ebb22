// Pages of the shop. JSX escapes all values.

const Page = ({ shop, title, children }) => (
  <html lang="en">
    <head>
      <meta charset="utf-8" />
      <title>{`${title} · ${shop.name}`}</title>
    </head>
    <body>
      <h1>{shop.name}</h1>
      {children}
    </body>
  </html>
);

export const Catalogue = ({ shop, products }) => (
  <Page shop={shop} title="Catalogue">
    <table>
      <thead>
        <tr>
          <th>Product</th>
          <th>Price</th>
          <th>In stock</th>
        </tr>
      </thead>
      <tbody>
        {products.map(({ sku, name, price, stock }) => (
          <tr id={sku} class={stock > 0 ? 'available' : 'sold-out'}>
            <td>
              <a href={`/products/${sku}`}>{name}</a>
            </td>
            <td>{`${(price / 100).toFixed(2)} ${shop.currency}`}</td>
            <td>{stock > 0 ? stock : 'sold out'}</td>
          </tr>
        ))}
      </tbody>
    </table>
  </Page>
);

export const Missing = ({ shop, path }) => (
  <Page shop={shop} title="Not found">
    <p>{`There is no ${path} here.`}</p>
  </Page>
);

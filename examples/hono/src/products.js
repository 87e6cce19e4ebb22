// Products of the shop, with prices in cents.
const kinds = ['Kettle', 'Mug', 'Teapot', 'Tray', 'Tin'];
const finishes = ['white', 'black', 'blue', 'green', 'steel', 'oak', 'copper', 'clay', 'glass', 'linen', 'slate', 'amber'];
const sizes = ['small', 'large'];

export const products = kinds.flatMap((kind, k) =>
  finishes.flatMap((finish, f) =>
    sizes.map((size, s) => ({
      sku: `${kind}-${finish}-${size}`.toLowerCase(),
      name: `${kind} "${finish}", ${size}`,
      price: 490 + 310 * k + 70 * f + 180 * s,
      stock: (k * 7 + f * 3 + s) % 11,
    })),
  ),
);

// Builds the component: node build.js [FILE]
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { componentize } from '@bytecodealliance/componentize-js';
import { build } from 'esbuild';

// componentize-js reads one module, so esbuild bundles the framework and the app; the interfaces stay imports
const folder = await mkdtemp('bundle-');
const bundle = join(folder, 'function.js');
await build({
  entryPoints: ['src/function.jsx'],
  outfile: bundle,
  bundle: true,
  format: 'esm',
  target: 'es2023',
  jsx: 'automatic',
  jsxImportSource: 'hono/jsx',
  external: ['wasi:*'],
});
const { component } = await componentize({
  sourcePath: bundle,
  witPath: '../wit',
  worldName: 'function',
});
await rm(folder, { recursive: true });
await writeFile(process.argv[2] ?? 'hono.wasm', component);

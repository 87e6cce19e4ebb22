// Builds the component: node build.js [FILE]
import { writeFile } from 'node:fs/promises';
import { componentize } from '@bytecodealliance/componentize-js';

const { component } = await componentize({
  sourcePath: 'src/function.js',
  witPath: '../wit',
  worldName: 'function',
});
await writeFile(process.argv[2] ?? 'javascript.wasm', component);

#!/usr/bin/env node
import {setFlagsFromString} from 'node:v8';
import {v8Flags} from './v8-flags.js';

// Plain JavaScript that an old Node.js can read: its whole purpose is to say so there.
const wanted = [22, 15];
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < wanted[0] || (major === wanted[0] && minor < wanted[1])) {
  console.error(
    `loma-backup needs Node.js ${wanted.join('.')} or later; this is ${process.versions.node} (${process.execPath}).`,
  );
  process.exit(2);
}
for (const flag of v8Flags(major)) setFlagsFromString(flag);
// oclif would load forty files to check the same once more.
process.env.OCLIF_DISABLE_ENGINE_WARNING = '1';
const {main} = await import('../dist/main.js');
await main({root: import.meta.dirname});

#!/usr/bin/env node
import {setFlagsFromString} from 'node:v8';

// Plain JavaScript that an old Node.js can read: its whole purpose is to say so there.
const wanted = [22, 15];
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < wanted[0] || (major === wanted[0] && minor < wanted[1])) {
  console.error(
    `loma-backup needs Node.js ${wanted.join('.')} or later; this is ${process.versions.node} (${process.execPath}).`,
  );
  process.exit(2);
}
// V8 starts with a nursery of 1 MB for its objects, which grows step by step, with a collection at each: here, in one step.
// A version that does not know the flag would complain of it.
if (major <= 26) setFlagsFromString('--semi-space-growth-factor=16');
// oclif would load forty files to check the same once more.
process.env.OCLIF_DISABLE_ENGINE_WARNING = '1';
const {main} = await import('../dist/main.js');
await main({root: import.meta.dirname});

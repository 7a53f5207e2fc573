#!/usr/bin/env node
// Plain JavaScript that an old Node.js can read: its whole purpose is to say so there.
const wanted = [22, 15];
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < wanted[0] || (major === wanted[0] && minor < wanted[1])) {
  console.error(
    `loma-backup needs Node.js ${wanted.join('.')} or later; this is ${process.versions.node} (${process.execPath}).`,
  );
  process.exit(2);
}
const {execute} = await import('@oclif/core');
await execute({dir: import.meta.url});

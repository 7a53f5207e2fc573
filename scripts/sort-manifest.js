// oclif writes the commands in the order in which the file system gives them: sorted, a build on any machine writes the same file.
import {readFileSync, writeFileSync} from 'node:fs';

const file = new URL('../oclif.manifest.json', import.meta.url);
const manifest = JSON.parse(readFileSync(file, 'utf8'));
const byName = ([a], [b]) => (a < b ? -1 : 1);
const commands = Object.fromEntries(Object.entries(manifest.commands).sort(byName));
writeFileSync(file, `${JSON.stringify({...manifest, commands}, undefined, 2)}\n`);

/** The memory of `files migrate`, `verify` and `restore` with one file of 5 GB and with 10,000 small ones, in a directory store. */
import {randomBytes} from 'node:crypto';
import {mkdir, open, rm, writeFile} from 'node:fs/promises';
import {ServerDirectory} from '../../test/support/server-directory.ts';
import {cli, environmentWith, newKey} from '../shared/cli.ts';
import {run, type Script} from '../shared/script.ts';
import {textTable} from '../shared/table.ts';
import type {Target} from './report.ts';
import {measureResources} from './rounds.ts';

const largeMb = 5000;
const smallCount = 10_000;

export async function measureFilesMemory({defer, signal}: Script): Promise<Target[]> {
  const directory = await ServerDirectory.create('bench-files-memory');
  defer(() => directory.remove());
  const env = environmentWith({PHI_ENCRYPTION_KEY: newKey(), LOMA_BACKUP_STORE: `file://${directory.path}/store`});
  await mkdir(`${directory.path}/store`);
  const targets: Target[] = [];
  const rows: string[][] = [];
  for (const load of ['large', 'small']) {
    const uploads = `${directory.path}/${load}`;
    await mkdir(uploads);
    await (load === 'large' ? fillLarge(`${uploads}/scan.bin`) : fillSmall(uploads));
    const of = load === 'large' ? `1 file of ${largeMb} MB` : `${smallCount} files of 1 kB`;
    for (const args of [
      ['migrate', uploads],
      ['verify', `${load}/`],
      ['restore', `${load}/`, '--to', `${directory.path}/restored`],
    ]) {
      const title = `files ${args[0]}`;
      const start = performance.now();
      const {peakBytes} = await measureResources({
        id: title,
        title,
        work: (onStart) =>
          run(cli.file, [cli.script, 'files', ...args], {env, signal, output: 'quiet', ...(onStart ? {onStart} : {})}),
      });
      const seconds = (performance.now() - start) / 1000;
      rows.push([title, of, seconds.toFixed(1), (peakBytes / 1e6).toFixed(0)]);
      targets.push({what: `memory: ${title}, ${of}`, figure: peakBytes / 1e6, atMost: 300, unit: 'MB'});
    }
    await rm(uploads, {recursive: true});
    await rm(`${directory.path}/restored`, {recursive: true});
  }
  console.log(
    `\nFiles in a directory store: peak memory (PSS)\n\n${textTable(['What', 'Of', 'Seconds', 'Peak MB'], rows)}`,
  );
  return targets;
}

async function fillLarge(file: string): Promise<void> {
  const handle = await open(file, 'w');
  for (let index = 0; index < largeMb; index += 1) await handle.writeFile(randomBytes(1e6));
  await handle.close();
}

async function fillSmall(uploads: string): Promise<void> {
  for (let index = 0; index < smallCount; index += 1) await writeFile(`${uploads}/file ${index}`, randomBytes(1000));
}

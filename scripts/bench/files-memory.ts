/**
 * `node scripts/bench/files-memory.ts`: the memory of `files migrate`, `verify` and `restore` with one file of 5 GB and with
 * 10,000 small files, in a directory store. A smaller try: `LARGE_MB=50 SMALL=100 node scripts/bench/files-memory.ts`.
 */
import {randomBytes} from 'node:crypto';
import {mkdir, open, rm, writeFile} from 'node:fs/promises';
import {ServerDirectory} from '../../test/support/server-directory.ts';
import {cli, environmentWith, newKey} from '../shared/cli.ts';
import {run, runScript} from '../shared/script.ts';
import {textTable} from '../shared/table.ts';
import {watchMemory} from './memory.ts';

const largeMb = Number(process.env.LARGE_MB ?? 5000);
const smallCount = Number(process.env.SMALL ?? 10_000);

await runScript(async ({defer, signal}) => {
  const directory = await ServerDirectory.create('bench-files-memory');
  defer(() => directory.remove());
  const env = environmentWith({PHI_ENCRYPTION_KEY: newKey(), LOMA_BACKUP_STORE: `file://${directory.path}/store`});
  await mkdir(`${directory.path}/store`);
  const rows: string[][] = [];
  for (const load of ['large', 'small']) {
    const uploads = `${directory.path}/${load}`;
    await mkdir(uploads);
    await (load === 'large' ? fillLarge(`${uploads}/scan.bin`) : fillSmall(uploads));
    const prefix = `${load}/`;
    for (const args of [
      ['migrate', uploads],
      ['verify', prefix],
      ['restore', prefix, '--to', `${directory.path}/restored`],
    ]) {
      const start = performance.now();
      let watch: ReturnType<typeof watchMemory> | undefined;
      await run(cli.file, [cli.script, 'files', ...args], {
        env,
        signal,
        output: 'quiet',
        onStart: (pid) => {
          watch = watchMemory(pid);
        },
      });
      const what = load === 'large' ? `1 file of ${largeMb} MB` : `${smallCount} files of 1 kB`;
      const seconds = (performance.now() - start) / 1000;
      rows.push([`files ${args[0]}`, what, seconds.toFixed(1), ((watch?.stop() ?? 0) / 1e6).toFixed(0)]);
    }
    await rm(uploads, {recursive: true});
    await rm(`${directory.path}/restored`, {recursive: true});
  }
  console.log(textTable(['What', 'Of', 'Seconds', 'Peak MB (PSS)'], rows));
});

async function fillLarge(file: string): Promise<void> {
  const handle = await open(file, 'w');
  for (let index = 0; index < largeMb; index += 1) await handle.writeFile(randomBytes(1e6));
  await handle.close();
}

async function fillSmall(uploads: string): Promise<void> {
  for (let index = 0; index < smallCount; index += 1) await writeFile(`${uploads}/file ${index}`, randomBytes(1000));
}

/**
 * `node scripts/bench/files.ts [rounds]`: `files migrate` next to `rclone copy` to a crypt remote, in turn, on the same throw-away S3
 * server: many small files, and a few large ones; and the memory of each.
 */
import {randomBytes} from 'node:crypto';
import {mkdir, rm, writeFile} from 'node:fs/promises';
import {execa} from 'execa';
import {createBucket, startObjectServer} from '../../test/support/object-server.ts';
import {ensurePrograms} from '../../test/support/packages.ts';
import {ServerDirectory} from '../../test/support/server-directory.ts';
import {cli, environmentWith, newKey, objectSettings} from '../shared/cli.ts';
import {run, runScript, type Script} from '../shared/script.ts';
import type {Contender} from './contenders.ts';
import {type MemoryFigure, memoryTable, timesTable} from './report.ts';
import {measureInTurn, peakMemory} from './rounds.ts';

interface Load {
  title: string;
  count: number;
  bytes: number;
}

/** A smaller try: `SMALL=200 LARGE_MB=25 node scripts/bench/files.ts`. */
const loads: readonly Load[] = [
  {title: 'small', count: Number(process.env.SMALL ?? 2000), bytes: 50_000},
  {title: 'large', count: 4, bytes: Number(process.env.LARGE_MB ?? 250) * 1e6},
];

await runScript(async (script) => {
  const rounds = Number(process.argv[2] ?? 1);
  await ensurePrograms(['rclone']);
  const server = await startObjectServer();
  script.defer(() => server.stop());
  const directory = await ServerDirectory.create('bench-files');
  script.defer(() => directory.remove());
  const memory: MemoryFigure[] = [];
  for (const load of loads) {
    const folder = `${directory.path}/${load.title}/uploads`;
    await fill(folder, load);
    const contenders = await contendersOf(folder, server, directory.path, script);
    const times = await measureInTurn(contenders, rounds, (title, seconds) =>
      process.stderr.write(`${seconds.toFixed(2)} s  ${title}\n`),
    );
    const total = load.count * load.bytes;
    console.log(`\n${load.count} files of ${load.bytes / 1e6} MB\n`);
    console.log(timesTable(contenders, times, 'rclone', total));
    for (const contender of contenders) {
      const peakBytes = await peakMemory(contender);
      memory.push({what: `${contender.title}, ${load.title}`, dumpBytes: total, peakBytes});
    }
    await rm(folder, {recursive: true});
  }
  console.log(`\nPeak memory (PSS), looked at every 50 ms, in runs of their own\n\n${memoryTable(memory)}`);
});

async function fill(folder: string, {count, bytes}: Load): Promise<void> {
  for (let index = 0; index < count; index += 1) {
    const within = `${folder}/${String(index % 20).padStart(2, '0')}`;
    await mkdir(within, {recursive: true});
    await writeFile(`${within}/file ${index}.bin`, randomBytes(bytes));
  }
}

/** Each into a bucket of its own, that was empty before. */
async function contendersOf(
  folder: string,
  server: Awaited<ReturnType<typeof startObjectServer>>,
  home: string,
  {signal}: Script,
): Promise<Contender[]> {
  const {stdout: password} = await execa('rclone', ['obscure', newKey()]);
  const config = `${home}/rclone.conf`;
  let bucket = '';
  const key = newKey();
  const loma: Contender = {
    id: 'loma',
    title: 'loma-backup files migrate',
    before: async () => {
      bucket = await createBucket(server);
    },
    work(onStart) {
      const env = environmentWith({
        ...objectSettings(server, bucket),
        CLOUDFLARE_R2_BUCKET_FILES: bucket,
        PHI_ENCRYPTION_KEY: key,
      });
      const args = [cli.script, 'files', 'migrate', folder];
      return run(cli.file, args, {env, signal, output: 'quiet', ...(onStart ? {onStart} : {})});
    },
  };
  const rclone: Contender = {
    id: 'rclone',
    title: 'rclone copy, crypt remote',
    async before() {
      bucket = await createBucket(server);
      const lines = [
        '[server]',
        'type = s3',
        'provider = Other',
        `access_key_id = ${server.accessKeyId}`,
        `secret_access_key = ${server.secretAccessKey}`,
        `endpoint = ${server.endpoint}`,
        `region = ${server.region}`,
        'force_path_style = true',
        '[sealed]',
        'type = crypt',
        `remote = server:${bucket}/migrated`,
        `password = ${password}`,
        '',
      ];
      await writeFile(config, lines.join('\n'), {mode: 0o600});
    },
    work(onStart) {
      const args = ['--config', config, 'copy', folder, 'sealed:uploads', '--transfers', '4', '--s3-no-check-bucket'];
      // It cannot use a CA bundle that the environment names for the AWS SDK, and needs none.
      const {AWS_CA_BUNDLE: _, ...env} = process.env;
      return run('rclone', args, {env, signal, output: 'quiet', ...(onStart ? {onStart} : {})});
    },
  };
  return [rclone, loma];
}

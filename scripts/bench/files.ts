/**
 * `files migrate` next to `rclone copy` to a crypt remote, in turn, on the same throw-away S3 server: many small files, and a
 * few large ones; and the memory and the processor time of each.
 */
import {randomBytes} from 'node:crypto';
import {mkdir, rm, writeFile} from 'node:fs/promises';
import {execa} from 'execa';
import {createBucket, startObjectServer} from '../../test/support/object-server.ts';
import {ensurePrograms} from '../../test/support/packages.ts';
import {ServerDirectory} from '../../test/support/server-directory.ts';
import {cli, environmentWith, newKey, objectSettings} from '../shared/cli.ts';
import {run, type Script} from '../shared/script.ts';
import {textTable} from '../shared/table.ts';
import type {Contender} from './contenders.ts';
import {measureFilesMemory} from './files-memory.ts';
import type {BenchOptions} from './options.ts';
import {type Target, timesTable} from './report.ts';
import {measureInTurn, measureResources, medianRatio} from './rounds.ts';

interface Load {
  title: string;
  count: number;
  bytes: number;
}

const mostMegabytes = 300;

export async function benchFiles({files, rounds, large}: BenchOptions, script: Script): Promise<Target[]> {
  await ensurePrograms(['rclone']);
  const server = await startObjectServer();
  script.defer(() => server.stop());
  const directory = await ServerDirectory.create('bench-files');
  script.defer(() => directory.remove());
  const loads: readonly Load[] = [
    {title: `${files} files of 50 kB`, count: files, bytes: 50_000},
    {title: `4 files of ${files / 8} MB`, count: 4, bytes: (files / 8) * 1e6},
  ];
  const targets: Target[] = [];
  const resources: string[][] = [];
  for (const load of loads) {
    const folder = `${directory.path}/${load.count}/uploads`;
    await fill(folder, load);
    const contenders = await contendersOf(folder, server, directory.path, script);
    const times = await measureInTurn(contenders, rounds, (title, seconds) =>
      process.stderr.write(`${seconds.toFixed(2)} s  ${title}, ${load.title}\n`),
    );
    console.log(`\nFiles into a local S3 server, ${load.title}: wall time\n`);
    console.log(timesTable(contenders, times, 'rclone', load.count * load.bytes));
    targets.push({
      what: `files migrate / (rclone copy, crypt), ${load.title}`,
      figure: medianRatio(times, 'loma', 'rclone'),
      atMost: 1,
      unit: '',
    });
    for (const contender of contenders) {
      const {peakBytes, cpuSeconds} = await measureResources(contender);
      resources.push([contender.title, load.title, cpuSeconds.toFixed(1), (peakBytes / 1e6).toFixed(0)]);
      if (contender.id !== 'loma') continue;
      targets.push({
        what: `memory: files migrate, ${load.title}`,
        figure: peakBytes / 1e6,
        atMost: mostMegabytes,
        unit: 'MB',
      });
    }
    await rm(folder, {recursive: true});
  }
  console.log('\nProcessor time and peak memory (PSS), looked at every 50 ms, in runs of their own\n');
  console.log(textTable(['What', 'Of', 'CPU s', 'Peak MB'], resources));
  if (large) targets.push(...(await measureFilesMemory(script)));
  return targets;
}

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

/** What is measured side by side. */
import {mkdir, rm} from 'node:fs/promises';
import {createDatabase} from '../../test/support/database.ts';
import type {ObjectHandle} from '../../test/support/object-handle.ts';
import {createBucket} from '../../test/support/object-server.ts';
import {cli, environmentWith, objectSettings} from '../shared/cli.ts';
import {run, type Script} from '../shared/script.ts';
import type {Workbench} from './workbench.ts';

export interface Contender {
  id: string;
  title: string;
  /** What is timed, with what has to be there before and is taken away afterwards. */
  before?(): Promise<void>;
  work(onStart?: (pid: number) => void): Promise<void>;
  after?(): Promise<void>;
}

export type LomaBackup = (
  args: readonly string[],
  settings?: Record<string, string>,
  onStart?: (pid: number) => void,
) => Promise<void>;

export function lomaBackup(bench: Workbench, {signal}: Script): LomaBackup {
  return (args, settings = {}, onStart) => {
    const env = {...bench.env, ...settings};
    return run(cli.file, [cli.script, ...args], {env, signal, output: 'quiet', ...(onStart ? {onStart} : {})});
  };
}

export async function emptyStore({storeFolder}: Workbench): Promise<void> {
  await rm(storeFolder, {recursive: true, force: true});
  await mkdir(storeFolder);
}

function pipeline(bench: Workbench, id: string, title: string, line: string): Contender {
  return {
    id,
    title,
    work: () => bench.shell(line),
    after: () => rm(`${bench.folder}/sealed`, {force: true}),
  };
}

/** `backup` into a directory. */
export function backupToDirectory(bench: Workbench, cliOf: LomaBackup, compression: string): Contender {
  return {
    id: compression,
    title: `loma-backup backup --compression ${compression}`,
    work: (onStart) => cliOf(['backup', '--compression', compression, '--no-prune'], {}, onStart),
    after: () => emptyStore(bench),
  };
}

function backupToS3(bench: Workbench, script: Script, server: ObjectHandle, compression: string): Contender {
  let bucket = '';
  return {
    id: `${compression}-s3`,
    title: `loma-backup backup --compression ${compression}, to a local S3 server`,
    async before() {
      bucket = await createBucket(server);
    },
    work: () => {
      const {DATABASE_URL = '', PHI_ENCRYPTION_KEY = ''} = bench.env;
      const env = environmentWith({DATABASE_URL, PHI_ENCRYPTION_KEY, ...objectSettings(server, bucket)});
      const args = [cli.script, 'backup', '--compression', compression, '--no-prune'];
      return run(cli.file, args, {env, signal: script.signal, output: 'quiet'});
    },
  };
}

export function dumpContenders(
  bench: Workbench,
  cliOf: LomaBackup,
  script: Script,
  objects: ObjectHandle,
): Contender[] {
  return [
    pipeline(bench, 'null', 'pg_dump >/dev/null', 'dump >/dev/null'),
    pipeline(
      bench,
      'zstd-age',
      'pg_dump | zstd -1 | age >file',
      'dump | zstd -q -1 | age -r "$RECIPIENT" >"$FOLDER/sealed"',
    ),
    backupToDirectory(bench, cliOf, 'zstd'),
    pipeline(bench, 'pigz-age', 'pg_dump | pigz | age >file', 'dump | pigz | age -r "$RECIPIENT" >"$FOLDER/sealed"'),
    backupToDirectory(bench, cliOf, 'gzip'),
    backupToS3(bench, script, objects, 'zstd'),
    backupToS3(bench, script, objects, 'gzip'),
  ];
}

/** Both into a fresh database; `restore` also counts every row, and runs ANALYZE. */
export function restoreContenders(bench: Workbench, cliOf: LomaBackup): Contender[] {
  return [
    intoFreshDatabase(bench, 'psql', 'psql -1 of the plain dump', ({name}) =>
      bench.shell('"$PSQL" -X -q -1 -v ON_ERROR_STOP=1 -f "$FOLDER/plain.sql" >/dev/null', name),
    ),
    intoFreshDatabase(bench, 'psql-analyze', 'psql -1 of the plain dump, then ANALYZE', ({name}) =>
      bench.shell(
        '"$PSQL" -X -q -1 -v ON_ERROR_STOP=1 -f "$FOLDER/plain.sql" >/dev/null; "$PSQL" -X -q -c ANALYZE',
        name,
      ),
    ),
    restoreContender(bench, cliOf),
  ];
}

export function restoreContender(bench: Workbench, cliOf: LomaBackup): Contender {
  return intoFreshDatabase(bench, 'restore', 'loma-backup restore, with row counts and ANALYZE', ({url}, onStart) =>
    cliOf(['restore', '--latest', '--target', url], {}, onStart),
  );
}

function intoFreshDatabase(
  bench: Workbench,
  id: string,
  title: string,
  work: (target: {name: string; url: string}, onStart?: (pid: number) => void) => Promise<void>,
): Contender {
  let target: Awaited<ReturnType<typeof createDatabase>> | undefined;
  return {
    id,
    title,
    async before() {
      target = await createDatabase(bench.postgres);
    },
    work: async (onStart) => {
      if (target) await work(target, onStart);
    },
    async after() {
      await target?.drop();
      // The dropped database's dirty pages are not the next one's business.
      await bench.source.query('CHECKPOINT');
    },
  };
}

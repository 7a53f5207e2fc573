/** As much as a large database has, from a generator in place of pg_dump: what the program takes does not grow with it. */
import {mkdtemp, rm} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {afterAll, beforeAll, describe, expect, it} from '@jest/globals';
import {type CliEnvironment, startCli, storeEnvironment} from '../support/cli.ts';
import {createDatabase, type TestDatabase} from '../support/database.ts';
import {canSample, type ProcessSample, quarters, sampleProcess} from '../support/process-samples.ts';
import {recordTrial} from '../support/reliability.ts';
import {servers} from '../support/sandbox.ts';
import {newKey, type TestStore, testStore} from '../support/settings.ts';
import {bySize} from '../support/size.ts';
import {putProgram} from '../support/workflow-runner.ts';

const {postgres} = servers();
const totalBytes = bySize({short: 600e6, full: 20e9});
/** Until the program's heap has its size: about 300 MB of the stream. */
const warmUpShare = bySize({short: 0.5, full: 0.05});
/** The last quarter against the first. If the parts that were stored stayed, the short stream would grow by a third. */
const mostGrowth = bySize({short: 1.15, full: 1.05});
const timeoutMs = 3_600_000;

let place: TestStore;
let database: TestDatabase;
let programs: string;
let environment: CliEnvironment;
beforeAll(async () => {
  [place, database, programs] = await Promise.all([
    testStore('s3'),
    createDatabase(postgres),
    mkdtemp(path.join(os.tmpdir(), 'loma-test-programs-')),
  ]);
  const generator = [process.execPath, path.join(import.meta.dirname, 'pg-dump.ts'), totalBytes, postgres.major];
  const command = generator.map((word) => `'${word}'`).join(' ');
  await putProgram(programs, 'pg_dump', `#!/bin/sh\nexec ${command} "$@"\n`);
  environment = {
    ...storeEnvironment(place.settings),
    DATABASE_URL: database.url,
    PHI_ENCRYPTION_KEY: newKey(),
    PATH: `${programs}:${process.env.PATH}`,
  };
});
afterAll(async () => {
  for (const each of await place.keys()) await place.store.delete(each);
  await Promise.all([place.dispose(), database.drop(), rm(programs, {recursive: true})]);
});

/** Runs a command, which has to succeed. */
async function sampled(args: readonly string[], stdout: 'pipe' | 'ignore') {
  const child = startCli(args, environment, {timeout: timeoutMs, stdout});
  const samples = await sampleProcess(child.pid ?? 0);
  const result = await child;
  expect(result).toMatchObject({exitCode: 0});
  return {samples, stdout: String(result.stdout)};
}

function expectFlat(samples: readonly ProcessSample[], what: string): void {
  const [first, , , last] = quarters(samples.slice(samples.length * warmUpShare));
  if (!first || !last) throw new Error('There are four quarters.');
  expect(last.memoryBytes).toBeLessThan(first.memoryBytes * mostGrowth);
  expect(last.openFiles).toBeLessThanOrEqual(first.openFiles + 2);
  const megabytes = ({memoryBytes}: ProcessSample) => `${Math.round(memoryBytes / 1e6)} MB`;
  recordTrial({
    area: 'Load: large dumps',
    what: `${what}, ${totalBytes / 1e9} GB`,
    outcome: `${megabytes(first)} of memory in the first quarter, ${megabytes(last)} in the last; ${last.openFiles} open files`,
  });
}

// The reason for a skip: elsewhere nobody tells how many files a process has open.
(canSample ? describe : describe.skip).each(bySize({short: ['gzip'], full: ['gzip', 'zstd']}))(
  'a large dump with %s',
  (compression) => {
    it(
      'is backed up in the same memory from its beginning to its end',
      async () => {
        const {samples, stdout} = await sampled(['backup', '--json', '--compression', compression], 'pipe');
        const {dumpBytes} = JSON.parse(stdout) as {dumpBytes: number};
        expect(dumpBytes).toBeGreaterThanOrEqual(totalBytes);
        expectFlat(samples, `backup with ${compression}`);
      },
      timeoutMs,
    );

    it(
      'and read, each table held to its digest',
      async () => {
        const {samples} = await sampled(['restore', '--latest', '--output', '-'], 'ignore');
        expectFlat(samples, `restore to a file, ${compression}`);
      },
      timeoutMs,
    );
  },
);

/**
 * The tests run on the newest Node.js. The program runs on older ones, too, whose streams, compressors and signals differ: a backup in
 * zstd once could not be restored with Node.js 22 and 24. So what depends on them is run there as well.
 */
import {readFile} from 'node:fs/promises';
import path from 'node:path';
import {describe, expect, it} from '@jest/globals';
import {execa} from 'execa';
import {parse} from 'yaml';
import {program} from './support/cli.ts';
import {olderNode} from './support/older-node.ts';

const root = path.resolve(import.meta.dirname, '..');
const jest = path.join(root, 'node_modules/jest/bin/jest.js');

/** The oldest that package.json allows, and one of the major release that our workflows choose. */
const releases = ['22.15.0', '24.21.0'];

/** Every stage; a whole backup and restore; the command line with its signals and its exit. */
const tests = [
  'test/lib',
  'test/operations/round-trip.test.ts',
  'test/commands/exit.test.ts',
  'test/commands/files.test.ts',
  'test/commands/verify-status.test.ts',
];

describe('the releases of Node.js that are tested', () => {
  it('are the oldest that is allowed, and the one of the workflows', async () => {
    const {engines} = JSON.parse(await readFile(path.join(root, 'package.json'), 'utf8'));
    expect(`${engines.node}.0`).toBe(`>=${releases[0]}`);
    const workflow = parse(await readFile(path.join(root, '.github/workflows/database-backup.yml'), 'utf8'));
    const steps = Object.values<{steps: {with?: Record<string, string>}[]}>(workflow.jobs).flatMap(({steps}) => steps);
    const versions = steps.map((step) => step.with?.['node-version']).filter(Boolean);
    expect(versions).toEqual([releases[1]?.split('.')[0]]);
  });
});

describe.each(releases)('on Node.js %s', (release) => {
  it('the program starts', async () => {
    const {stdout} = await execa(await olderNode(release), [program, '--version']);
    expect(stdout).toContain(`node-v${release}`);
  }, 120_000);

  it('the tests of what depends on Node.js pass', async () => {
    const node = await olderNode(release);
    const args = ['--experimental-vm-modules', jest, '--maxWorkers=1', '--silent', ...tests];
    const {exitCode, all} = await execa(node, args, {
      cwd: root,
      env: {...withoutOurs(process.env), PATH: `${path.dirname(node)}:${process.env.PATH}`},
      extendEnv: false,
      reject: false,
      all: true,
      stdin: 'ignore',
    });
    expect({exitCode, all: exitCode === 0 ? '' : all}).toEqual({exitCode: 0, all: ''});
    expect(all).toMatch(/^Tests: +(\d+ skipped, )?[1-9]\d{2,} passed, /m);
  }, 600_000);
});

/** Servers and a worker's number are those of this run; the other has its own. */
function withoutOurs(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const ours = ['LOMA_TEST_SERVERS', 'JEST_WORKER_ID', 'NODE_OPTIONS'];
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !ours.includes(name)));
}

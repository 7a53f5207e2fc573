/** What the program itself makes of a terminal, a pipe, NO_COLOR and FORCE_COLOR. */
import {mkdtemp, rm} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {afterAll, beforeAll, expect, test} from '@jest/globals';
import {execa} from 'execa';
import {cli, program} from '../support/cli.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-colour-'));
});
afterAll(() => rm(folder, {recursive: true}));

const store = () => ({LOMA_BACKUP_STORE: `file://${folder}`, CLOUDFLARE_R2_BUCKET_BACKUPS: 'backups'});
const boldText = '\u001b[1m0 backups';

test.each([
  [{}, false],
  [{FORCE_COLOR: '1'}, true],
])('a pipe with %j: bold is %s', async (variables, isBold) => {
  const {stdout, exitCode} = await cli(['prune'], {...store(), ...(variables as Record<string, string>)});
  expect(exitCode).toBe(0);
  expect(stdout).toContain('0 backups deleted');
  expect(stdout.includes(boldText)).toBe(isBold);
  if (!isBold) expect(stdout).not.toContain('\u001b');
});

// script (bsdutils) gives the program a terminal.
test.each([
  [{}, true],
  [{NO_COLOR: '1'}, false],
  [{FORCE_COLOR: '0'}, false],
])('a terminal with %j: bold is %s', async (variables, isBold) => {
  const {stdout, exitCode} = await execa('script', ['-qec', `'${process.execPath}' '${program}' prune`, '/dev/null'], {
    env: {...store(), PATH: process.env.PATH ?? '', TERM: 'xterm', ...(variables as Record<string, string>)},
    extendEnv: false,
    stdin: 'ignore',
    reject: false,
  });
  expect(exitCode).toBe(0);
  expect(stdout).toContain('0 backups deleted');
  expect(stdout.includes(boldText)).toBe(isBold);
});

test.each([
  [0, false],
  [80, true],
])('a terminal of %i columns: progress in place is %s', async (columns, isTree) => {
  const command = `stty cols ${columns}; '${process.execPath}' '${program}' prune`;
  const env = {...store(), PATH: process.env.PATH ?? '', TERM: 'xterm', NO_COLOR: '1'};
  const {stdout} = await execa('script', ['-qec', command, '/dev/null'], {env, extendEnv: false, stdin: 'ignore'});
  expect(stdout).toContain('0 backups deleted');
  expect(stdout.includes('\u001b')).toBe(isTree);
});

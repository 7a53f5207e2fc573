import {mkdtemp, rm} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {afterAll, beforeAll, describe, expect, it, test} from '@jest/globals';
import {execa} from 'execa';
import {maskerFor} from '../../src/lib/secret.ts';
import {isTraced, Trace} from '../../src/ui/trace.ts';
import {cli, program} from '../support/cli.ts';

describe('DEBUG', () => {
  it.each(['*', 'loma-backup', 'loma-backup:*', 'http,loma-backup:*', 'express loma-*', '*,-http'])(
    '%s asks for traces',
    (debug) => expect(isTraced(debug)).toBe(true),
  );

  it.each([undefined, '', 'loma', 'oclif:*', 'loma-backups', 'http,express:*', '*,-loma-backup', 'loma.backup', '('])(
    '%s does not',
    (debug) => expect(isTraced(debug)).toBe(false),
  );
});

test('a trace is one line an event, without progress, secrets and control characters, and hands every event on', () => {
  const lines: string[] = [];
  const seen: string[] = [];
  const trace = new Trace((text) => lines.push(text), maskerFor(['s3cret']));
  const observer = trace.wrap(({type}) => seen.push(type));
  observer({type: 'started', step: 'connect'});
  observer({type: 'progress', step: 'connect', bytes: 1});
  observer({type: 'finished', step: 'connect', note: 'pg_dump 17.6'});
  observer({type: 'skipped', step: 'delete', note: 'not\nasked\u001b[2J for'});
  observer({type: 'warning', message: 'of s3cret'});
  expect(seen).toEqual(['started', 'progress', 'finished', 'skipped', 'warning']);
  expect(lines.map((line) => line.replace(/\+\d+ms/, '+0ms'))).toEqual([
    'loma-backup +0ms started connect\n',
    'loma-backup +0ms finished connect: pg_dump 17.6\n',
    'loma-backup +0ms skipped delete: not\\x0aasked\\x1b[2J for\n',
    'loma-backup +0ms warning: of [secret]\n',
  ]);
});

test('with --json the traces are on stderr, and end with the exit code; the arguments are not among them', async () => {
  const args = ['restore', '--latest', '--json', '--target', 'postgresql://someone:pw-1234@127.0.0.1:1/none'];
  const {stdout, stderr, exitCode} = await cli(args, {DEBUG: 'loma-backup:*'});
  expect(exitCode).toBe(2);
  expect(JSON.parse(stdout)).toMatchObject({error: {exitCode: 2}});
  expect(stderr).toMatch(/^loma-backup \+\d+ms restore of \S+, Node\.js \S+, \w+ \w+\n/);
  expect(stderr).toMatch(/loma-backup \+\d+ms ends with exit code 2, \w+\n?$/);
  expect(stderr).not.toContain('pw-1234');
  expect((await cli(args)).stderr).toBe('');
});

describe('the steps of a command', () => {
  let environment: Record<string, string>;
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-trace-'));
    environment = {LOMA_BACKUP_STORE: `file://${folder}`, CLOUDFLARE_R2_BUCKET_BACKUPS: 'backups', DEBUG: '*'};
  });
  afterAll(() => rm(folder, {recursive: true}));

  const tracedIn = (text: string) =>
    text.split(/\r?\n/).flatMap((line) => /^loma-backup \+\d+ms (\w+ \w+)/.exec(line)?.[1] ?? []);
  const traced = [
    'prune of',
    ...['catalog', 'delete', 'uploads'].flatMap((step) => [`started ${step}`, `finished ${step}`]),
    'ends with',
  ];

  test('are traced', async () => {
    const {stderr, exitCode} = await cli(['prune'], environment);
    expect(exitCode).toBe(0);
    expect(tracedIn(stderr)).toEqual(traced);
  });

  test('on a terminal, too: progress is plain lines then, so that no line is overwritten', async () => {
    const command = `stty cols 80; '${process.execPath}' '${program}' prune`;
    const env = {...environment, PATH: process.env.PATH ?? '', TERM: 'xterm', NO_COLOR: '1'};
    const {stdout} = await execa('script', ['-qec', command, '/dev/null'], {env, extendEnv: false, stdin: 'ignore'});
    expect(tracedIn(stdout)).toEqual(traced);
    expect(stdout).toContain('0 backups deleted');
    expect(stdout).not.toContain('\u001b');
  });
});

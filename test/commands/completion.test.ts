/** The scripts of `completion`, run by a shell. */
import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {afterAll, beforeAll, describe, expect, test} from '@jest/globals';
import {execa, execaSync} from 'execa';
import {cli} from '../support/cli.ts';

const hasZsh = execaSync('zsh', ['--version'], {reject: false}).exitCode === 0;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-completion-'));
  // A password that is the name of a command: the script must stay whole.
  const environment = {DATABASE_URL: 'postgresql://clinic:backup@127.0.0.1/clinic'};
  for (const shell of ['bash', 'zsh']) {
    const {stdout, stderr, exitCode} = await cli(['completion', shell], environment);
    expect({exitCode, stderr}).toEqual({exitCode: 0, stderr: ''});
    await writeFile(path.join(folder, shell), stdout);
  }
});
afterAll(() => rm(folder, {recursive: true}));

async function bash(script: string, words: readonly string[]): Promise<string[]> {
  const {stdout} = await execa('bash', ['--norc', '-euc', script, 'bash', ...words], {cwd: folder});
  return stdout.split('\n').filter(Boolean);
}

describe('bash', () => {
  const script = `source ./bash
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    _loma_backup
    printf '%s\\n' "\${COMPREPLY[@]-}"`;

  test.each<[string[], string[]]>([
    [['b'], ['backup']],
    [[''], ['backup', 'completion', 'files', 'init', 'keys', 'list', 'prune', 'restore', 'status', 'verify']],
    [
      ['files', ''],
      ['list', 'migrate', 'restore', 'verify'],
    ],
    [['keys', 'ro'], ['rotate']],
    [
      ['prune', '--keep'],
      ['--keep-days', '--keep-last'],
    ],
    [['prune', '--dry-run', '--keep-l'], ['--keep-last']],
    [['files', 'migrate', 'uploads', '--dr'], ['--dry-run']],
    [
      ['backup', '--compression', ''],
      ['gzip', 'zstd'],
    ],
    [['backup', '--compression', '=', 'z'], ['zstd']],
    [
      ['backup', '--compression', '='],
      ['gzip', 'zstd'],
    ],
    [
      ['completion', ''],
      ['bash', 'zsh'],
    ],
    // Names of files, which bash itself gives.
    [['restore', '--output', ''], []],
    [['restore', '--output', '=', 'b'], []],
    [['files', 'migrate', 'up'], []],
    [['list', 'files', ''], []],
    [
      ['$(touch created)', ''],
      ['backup', 'completion', 'files', 'init', 'keys', 'list', 'prune', 'restore', 'status', 'verify'],
    ],
  ])('%j', async (words, expected) => {
    expect(await bash(script, ['loma-backup', ...words])).toEqual(expected);
  });

  test('it is what Tab runs', async () => {
    expect(await bash('source ./bash; complete -p loma-backup', [])).toEqual([
      'complete -o default -F _loma_backup loma-backup',
    ]);
  });
});

describe('zsh', () => {
  // zsh's own functions are left out: what they are given is looked at. The rest of the script is bash as well.
  const script = `compdef() { echo "compdef $*"; }
    compadd() { printf '%s\\n' "$@"; }
    _describe() { printf '%s\\n' "\${choices[@]}"; }
    _files() { echo files; }
    funcstack=(- -)
    source ./zsh
    words=(- "$@") CURRENT=$#
    _loma_backup`;

  test.each<[string[], string[]]>([
    [
      ['keys', ''],
      ['generate:', 'rotate:', 'show:'],
    ],
    [
      ['backup', '--compression', ''],
      ['gzip', 'zstd'],
    ],
    [['restore', '--output', ''], ['files']],
    [['list', ''], ['files']],
    [
      ['list', '-'],
      ['--json:', '--help:'],
    ],
  ])('%j', async (words, expected) => {
    const [registered, ...offered] = await bash(script, ['loma-backup', ...words]);
    expect(registered).toBe('compdef _loma_backup loma-backup');
    expect(offered.map((line) => line.replace(/:.*/, ':'))).toEqual(expected);
  });

  // Where zsh is not installed there is nothing that could read it.
  (hasZsh ? test : test.skip)('zsh itself reads it', async () => {
    await execa('zsh', ['-n', path.join(folder, 'zsh')]);
  });
});

test('another shell is a usage error', async () => {
  const {exitCode, stderr} = await cli(['completion', 'fish']);
  expect(exitCode).toBe(2);
  expect(stderr).toContain('fish');
});

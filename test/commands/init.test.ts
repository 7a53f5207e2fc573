import {chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {afterEach, beforeAll, beforeEach, describe, expect, it} from '@jest/globals';
import {execa} from 'execa';
import {workflows} from '../../src/lib/scaffold/workflows.ts';
import {cli, program} from '../support/cli.ts';
import {ensurePrograms} from '../support/packages.ts';
import {servers} from '../support/sandbox.ts';

const {postgres} = servers();
let place: string;

beforeEach(async () => {
  place = await mkdtemp(path.join(os.tmpdir(), 'loma-test-init-'));
});
afterEach(() => rm(place, {recursive: true, force: true}));

const read = (name: string) => readFile(path.join(place, name), 'utf8').catch(() => undefined);

describe('init github', () => {
  const file = '.github/workflows/database-backup.yml';
  let within: string;
  const init = (...args: string[]) => cli(['init', 'github', ...args], {}, {cwd: within});

  beforeEach(async () => {
    within = path.join(place, 'packages/web');
    await mkdir(path.join(place, '.git'));
    await mkdir(within, {recursive: true});
  });

  it('writes both workflows at the root of the repository, and says what to do next', async () => {
    const {exitCode, stdout} = await init();
    expect(exitCode).toBe(0);
    for (const [name, text] of Object.entries(workflows)) expect(await read(name)).toBe(text);
    for (const secret of ['DATABASE_URL', 'PHI_ENCRYPTION_KEY', 'CLOUDFLARE_R2_SECRET_ACCESS_KEY']) {
      expect(stdout).toContain(`gh secret set ${secret}\n`);
    }
    expect((await init()).stdout).toContain('is there already, the same');
  });

  it('keeps a file that differs, shows what differs, and exits with 7; --overwrite replaces it', async () => {
    await init();
    const mine = (workflows[file] ?? '').replace("cron: '0 2 * * *'", "cron: '30 3 * * *'");
    await writeFile(path.join(place, file), mine);
    const kept = await init();
    expect(kept).toMatchObject({exitCode: 7});
    expect(kept.stdout).toContain(`${file}: KEPT`);
    expect(kept.stdout).toContain("-    - cron: '30 3 * * *'\n+    - cron: '0 2 * * *'\n");
    expect(await read(file)).toBe(mine);
    const planned = await init('--overwrite', '--dry-run');
    expect(planned).toMatchObject({exitCode: 0, stdout: expect.stringContaining(`${file}: would be replaced`)});
    expect(await read(file)).toBe(mine);
    expect(await init('--overwrite')).toMatchObject({exitCode: 0});
    expect(await read(file)).toBe(workflows[file]);
  });

  it('--dry-run writes nothing; --json is one document', async () => {
    const {exitCode, stdout} = await init('--dry-run', '--json');
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout)).toEqual({
      directory: place,
      dryRun: true,
      files: Object.keys(workflows).map((name) => ({path: name, state: 'created'})),
    });
    expect(await read(file)).toBeUndefined();
  });

  it('outside of a repository: exit code 2, and nothing is written', async () => {
    await rm(path.join(place, '.git'), {recursive: true});
    const {exitCode, stderr} = await init();
    expect(exitCode).toBe(2);
    expect(stderr).toContain('is in no git repository');
    expect(await read(file)).toBeUndefined();
  });

  it('does not write through a link, nor leave half of a set behind without a word', async () => {
    await mkdir(path.join(place, '.github/workflows'), {recursive: true});
    await symlink(path.join(place, 'elsewhere'), path.join(place, file));
    const {exitCode, stderr} = await init();
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/database-backup\.yml could not be written[\s\S]*Code: OUTPUT_FAILED/);
    expect(await read('elsewhere')).toBeUndefined();
  });
});

describe('init systemd', () => {
  beforeAll(() => ensurePrograms(['systemd']));

  it('writes units that systemd takes, and that expose little', async () => {
    // A name that systemd would misread if it were not quoted.
    const strange = path.join(place, 'a program 100%');
    await writeFile(strange, '#!/bin/sh\n');
    await chmod(strange, 0o755);
    for (const each of [program, strange]) {
      const {exitCode} = await cli(['init', 'systemd', '--output', place, '--program', each, '--overwrite']);
      expect(exitCode).toBe(0);
      const units = ['loma-backup.service', 'loma-backup.timer'].map((name) => path.join(place, name));
      const verified = await execa('systemd-analyze', ['verify', ...units], {reject: false, all: true});
      expect(verified).toMatchObject({exitCode: 0, all: ''});
    }
    // 0 is no exposure, 10 is all; what is left is the network, which a backup needs (systemd 250 and later).
    const arguments_ = ['security', '--offline=true', '--threshold=15', path.join(place, 'loma-backup.service')];
    expect(await execa('systemd-analyze', arguments_, {reject: false, all: true})).toMatchObject({exitCode: 0});
  });

  it('verify would notice a directive that is none, and a program that is not there', async () => {
    await cli(['init', 'systemd', '--output', place, '--program', '/nonexistent/loma-backup']);
    const file = path.join(place, 'loma-backup.service');
    const text = (await readFile(file, 'utf8')).replace('NoNewPrivileges=', 'NoNewPrivilege=');
    await writeFile(file, text);
    const {exitCode, all} = await execa('systemd-analyze', ['verify', file], {reject: false, all: true});
    expect(exitCode).not.toBe(0);
    expect(all).toMatch(/NoNewPrivilege/);
    expect(all).toMatch(/nonexistent/);
  });

  it('takes secrets from credentials alone: no value stands in a unit', async () => {
    const secret = 'a-secret-that-is-set';
    await cli(['init', 'systemd', '--output', place], {PHI_ENCRYPTION_KEY: secret, DATABASE_URL: secret});
    const text = (await read('loma-backup.service')) ?? '';
    expect(text).not.toContain(secret);
    for (const name of ['DATABASE_URL', 'PHI_ENCRYPTION_KEY', 'CLOUDFLARE_R2_SECRET_ACCESS_KEY']) {
      expect(text).toMatch(new RegExp(`^Environment=${name}_FILE=%d/`, 'm'));
    }
  });
});

describe('init packages', () => {
  it("names the client's package of the server's major, and the server's when it is asked", async () => {
    const environment = {DATABASE_URL: postgres.adminUrl};
    const client = await cli(['init', 'packages'], environment);
    expect(client).toMatchObject({exitCode: 0, stdout: expect.stringMatching(/^postgresql-client-\d+$/)});
    const both = JSON.parse((await cli(['init', 'packages', '--with-server', '--json'], environment)).stdout);
    expect(both.packages).toEqual([client.stdout, client.stdout.replace('-client', '')]);
  });

  it('a server that does not answer is exit code 3', async () => {
    const {exitCode, stdout} = await cli(['init', 'packages'], {DATABASE_URL: 'postgresql://u:p@127.0.0.1:1/d'});
    expect({exitCode, stdout}).toEqual({exitCode: 3, stdout: ''});
  });
});

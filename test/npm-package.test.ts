/** What `npm publish` would send, installed in an empty directory and run there with npx. */
import {mkdir, mkdtemp, readFile, rm, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {afterAll, beforeAll, describe, expect, test} from '@jest/globals';
import {execa} from 'execa';
import type {TestDatabase} from './support/database.ts';
import {createDatabase} from './support/postgres-server.ts';
import {servers} from './support/sandbox.ts';
import {newKey} from './support/settings.ts';

const root = path.resolve(import.meta.dirname, '..');

interface Packed {
  filename: string;
  unpackedSize: number;
  files: {path: string}[];
}

let folder: string;
let packed: Packed;
beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'loma-test-npm-'));
  const pack = await execa('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {cwd: root});
  [packed] = JSON.parse(pack.stdout);
});
afterAll(() => rm(folder, {recursive: true}));

describe('the package', () => {
  test('holds the built program and its documents: no source, no test, no executable of one platform', () => {
    const paths = packed.files.map((file) => file.path);
    expect(paths).toEqual(
      expect.arrayContaining(['bin/run.js', 'bin/v8-flags.js', 'dist/main.js', 'oclif.manifest.json', 'package.json']),
    );
    const allowed =
      /^(bin\/(run|v8-flags)\.js|dist\/.+\.js|dist\/THIRD-PARTY-LICENSES\.txt|dist\/sbom\.cdx\.json|docs\/[^/]+\.(md|svg)|examples\/.+|oclif\.manifest\.json|package\.json|README\.md|CHANGELOG\.md|LICENSE)$/;
    expect(paths.filter((file) => !allowed.test(file))).toEqual([]);
  });

  test('is small', () => {
    expect(packed.unpackedSize).toBeLessThan(6_000_000);
  });
});

test('the lock file names no server: it installs from whatever registry npm is told to use', async () => {
  const {packages} = JSON.parse(await readFile(path.join(root, 'package-lock.json'), 'utf8'));
  const withAddress = Object.entries<{resolved?: string}>(packages).filter(([, {resolved}]) => resolved !== undefined);
  expect(withAddress).toEqual([]);
});

describe('installed in an empty directory', () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await createDatabase(servers().postgres, {sql: 'CREATE TABLE visit AS SELECT 1 AS n'});
    await writeFile(path.join(folder, 'package.json'), '{}');
    // It needs no registry: what it is made of comes with it.
    const flags = ['--omit=dev', '--offline', '--no-audit', '--no-fund'];
    await execa('npm', ['install', `./${packed.filename}`, ...flags], {cwd: folder});
  }, 300_000);
  afterAll(() => database.drop());

  test('`npx loma-backup` backs up and lists', async () => {
    await mkdir(path.join(folder, 'store'));
    // As in the repository of an application that is being developed.
    const env = {
      NODE_ENV: 'development',
      LOMA_BACKUP_STORE: `file://${folder}/store`,
      DATABASE_URL: database.url,
      PHI_ENCRYPTION_KEY: newKey(),
    };
    const npx = (...args: string[]) => execa('npx', ['--no', 'loma-backup', ...args], {cwd: folder, env});
    const backup = await npx('backup', '--json');
    expect(backup.stderr).not.toContain('Warning');
    const {key} = JSON.parse(backup.stdout);
    expect((await npx('list')).stdout).toContain(key);
  }, 120_000);

  test('no other package came along', async () => {
    const {packages} = JSON.parse(await readFile(path.join(folder, 'package-lock.json'), 'utf8'));
    expect(Object.keys(packages)).toEqual(['', 'node_modules/loma-backup']);
  });

  test('what it is made of is told with it: packages, versions, licences', async () => {
    const dist = path.join(folder, 'node_modules/loma-backup/dist');
    const {components} = JSON.parse(await readFile(path.join(dist, 'sbom.cdx.json'), 'utf8'));
    const names = components.map(({name}: {name: string}) => name);
    // Else somebody who looks for known holes would pass over them.
    const scopes = new Set(components.map(({scope}: {scope: string}) => scope));
    expect([...scopes]).toEqual(['required']);
    expect(JSON.stringify(components)).not.toContain('package:development');
    expect(names).toEqual(expect.arrayContaining(['@aws-sdk/client-s3', '@aws-crypto/encrypt-node', '@oclif/core']));
    const tools = ['@biomejs/biome', '@swc/core', 'esbuild', 'jest', 'node', 'oclif', 'typescript'];
    expect(names.filter((name: string) => tools.includes(name))).toEqual([]);
    const licenses = await readFile(path.join(dist, 'THIRD-PARTY-LICENSES.txt'), 'utf8');
    const untold = components.filter(
      ({name, version}: {name: string; version: string}) => !licenses.includes(`\n${name} ${version}\n`),
    );
    expect(untold).toEqual([]);
  });
});

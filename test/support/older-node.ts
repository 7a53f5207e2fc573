/** Releases of Node.js older than the one that the tests run on, from npm's packages of its executables. */
import {access, mkdir} from 'node:fs/promises';
import path from 'node:path';
import {execa} from 'execa';

/** Goes with `npm ci`, and is not in the way of anything until then. */
const cache = path.resolve(import.meta.dirname, '../../node_modules/.cache/loma-backup-tests');

/**
 * The executable of a release, which is installed at the first call.
 * @param version `22.15.0`
 */
export async function olderNode(version: string): Promise<string> {
  const name = `${packagePrefix()}-${process.platform}-${process.arch}`;
  const folder = path.join(cache, `node-${version}`);
  const file = path.join(folder, 'node_modules', name, 'bin/node');
  if (await exists(file)) return file;
  await mkdir(folder, {recursive: true});
  // Not a development dependency: it would bring a second `node` into node_modules/.bin, and everybody 200 MB.
  const args = ['install', '--prefix', folder, '--no-save', '--ignore-scripts', '--no-audit', '--no-fund'];
  await execa('npm', [...args, `${name}@${version}`], {stdin: 'ignore'});
  return file;
}

/** As the package `node` names them that it chooses from. */
function packagePrefix(): string {
  return process.platform === 'darwin' && process.arch === 'arm64' ? 'node-bin' : 'node';
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

/** The programs that the tests need: found on the machine, or installed from Debian's packages. */
import {access, constants} from 'node:fs/promises';
import path from 'node:path';
import {execa} from 'execa';
import {findPostgres} from './postgres-programs.ts';

interface Requirement {
  /** Debian's packages that bring it. */
  packages: readonly string[];
  isPresent(): Promise<boolean>;
}

/** Debian's own Python: its swift package is invisible to a Python that pyenv or Homebrew put first in PATH. */
export const debianPython = '/usr/bin/python3';

const requirements = {
  postgresql: {packages: ['postgresql'], isPresent: async () => (await findPostgres()) !== undefined},
  swift: {
    packages: ['python3-swift', 'memcached'],
    isPresent: async () => (await hasCommands('memcached')) && (await canImport('swift')),
  },
  ceph: {
    packages: ['radosgw', 'ceph-mon', 'ceph-osd', 'ceph-common'],
    isPresent: () =>
      hasCommands('radosgw', 'radosgw-admin', 'ceph-mon', 'ceph-osd', 'ceph', 'ceph-authtool', 'monmaptool'),
  },
  age: commandOfPackage('age'),
  gpg: commandOfPackage('gpg'),
  pigz: commandOfPackage('pigz'),
  rclone: commandOfPackage('rclone'),
  zstd: commandOfPackage('zstd'),
  openssl: commandOfPackage('openssl'),
  chromium: commandOfPackage('chromium'),
  jq: commandOfPackage('jq'),
  awk: {packages: ['gawk'], isPresent: () => hasCommands('awk')},
  xxd: commandOfPackage('xxd'),
  systemd: {packages: ['systemd'], isPresent: () => hasCommands('systemd-analyze')},
  faketime: commandOfPackage('faketime'),
  strace: commandOfPackage('strace'),
  ps: {packages: ['procps'], isPresent: () => hasCommands('ps')},
  'python3-cryptography': {packages: ['python3-cryptography'], isPresent: () => canImport('cryptography')},
} satisfies Record<string, Requirement>;

export type ProgramName = keyof typeof requirements;

/**
 * Makes sure of these programs; what is missing is installed with apt-get, as root or through a sudo that asks for no
 * password.
 *
 * @throws Error that says in one line what to install, where it cannot be done here.
 */
export function ensurePrograms(names: readonly ProgramName[]): Promise<void> {
  // One at a time: two callers in one process would fight for apt's locks.
  const done = turn.then(() => ensureNow(names));
  turn = done.catch(() => {});
  return done;
}

let turn: Promise<void> = Promise.resolve();

async function ensureNow(names: readonly ProgramName[]): Promise<void> {
  const missing = await absent(names);
  if (missing.length === 0) return;
  const packages = missing.flatMap((name) => requirements[name].packages);
  const asRoot = await rootPrefix();
  if (!asRoot || !(await hasCommands('apt-get'))) {
    throw new Error(
      `These tests need ${missing.join(', ')}: install them (Debian, Ubuntu: sudo apt-get install --no-install-recommends ${packages.join(' ')}).`,
    );
  }
  process.stderr.write(`Installing ${packages.join(' ')} for the tests.\n`);
  if (missing.includes('postgresql')) await preventMainCluster(asRoot);
  await updatePackageLists(asRoot);
  await aptGet(asRoot, ['install', '-y', '--no-install-recommends', ...packages]);
  const stillMissing = await absent(missing);
  if (stillMissing.length > 0)
    throw new Error(`apt-get installed ${packages.join(' ')}, yet there is no ${stillMissing}.`);
}

async function absent(names: readonly ProgramName[]): Promise<ProgramName[]> {
  const present = await Promise.all(names.map((name) => requirements[name].isPresent()));
  return names.filter((_, index) => !present[index]);
}

/** The words to put before a command to run it as root; undefined where that is not possible. */
async function rootPrefix(): Promise<string[] | undefined> {
  if (process.getuid?.() === 0) return [];
  const {failed} = await execa('sudo', ['-n', 'true'], {reject: false});
  return failed ? undefined : ['sudo', '-n'];
}

let listsUpdated: Promise<void> | undefined;

/** Once in a process. `apt-get update` does not wait for another's lock (only dpkg's has a timeout), so ask again. */
async function updatePackageLists(asRoot: string[]): Promise<void> {
  listsUpdated ??= untilUnlocked(() => aptGet(asRoot, ['update']), Date.now() + lockTimeoutSeconds * 1000);
  await listsUpdated;
}

const lockTimeoutSeconds = 300;

async function untilUnlocked(action: () => Promise<void>, deadline: number): Promise<void> {
  for (;;) {
    try {
      return await action();
    } catch (error) {
      const isLocked = /could not get lock|unable to lock/i.test((error as {stderr?: string}).stderr ?? '');
      if (!isLocked || Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

async function aptGet(asRoot: string[], args: string[]): Promise<void> {
  // `env` behind sudo, which would drop the variables. LC_ALL: the words about locks are looked for in English.
  const environment = ['env', 'DEBIAN_FRONTEND=noninteractive', 'UCF_FORCE_CONFFOLD=1', 'LC_ALL=C'];
  const options = [
    '-qq',
    '-o',
    `DPkg::Lock::Timeout=${lockTimeoutSeconds}`,
    '-o',
    'Acquire::Retries=3',
    '-o',
    'Dpkg::Options::=--force-confold',
  ];
  const [file = 'env', ...rest] = [...asRoot, ...environment, 'apt-get', ...options, ...args];
  await execa(file, rest, {stdin: 'ignore'});
}

/** Debian's package would start a server of its own on port 5432, which no test uses. */
async function preventMainCluster(asRoot: string[]): Promise<void> {
  const folder = '/etc/postgresql-common';
  const file = `${folder}/createcluster.conf`;
  const script = `[ -e ${file} ] && exit; mkdir -p ${folder}; echo 'create_main_cluster = false' >${file}`;
  const [shell = 'sh', ...args] = [...asRoot, 'sh', '-c', script];
  await execa(shell, args, {reject: false});
}

function commandOfPackage(name: string): Requirement {
  return {packages: [name], isPresent: () => hasCommands(name)};
}

async function hasCommands(...names: string[]): Promise<boolean> {
  const found = await Promise.all(names.map(isInPath));
  return found.every(Boolean);
}

async function isInPath(name: string): Promise<boolean> {
  const folders = (process.env.PATH ?? '').split(path.delimiter).filter(Boolean);
  for (const folder of folders) {
    try {
      await access(path.join(folder, name), constants.X_OK);
      return true;
    } catch {
      // Not in this folder.
    }
  }
  return false;
}

async function canImport(module: string): Promise<boolean> {
  const {failed} = await execa(debianPython, ['-I', '-c', `import ${module}`], {reject: false});
  return !failed;
}

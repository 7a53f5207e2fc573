/**
 * A throw-away PostgreSQL on this machine, for a trial restore where no server may be used (CI). It listens on a socket in
 * a directory of its own, only. Its data are PHI: they lie in memory where there is room, and go when it stops, also when
 * this process is killed.
 */
import {randomBytes} from 'node:crypto';
import {chown, mkdtemp, readFile, rm, statfs, writeFile} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {BackupError} from '../errors.ts';
import type {Connection} from '../postgres/connection.ts';
import {type Account, atEndOfProcess, describeFailure, execute, processFailure} from '../postgres/process.ts';
import {findTools, type Tool} from '../postgres/tools.ts';
import {Secret} from '../secret.ts';

export interface LocalServer {
  /** As its superuser, to the database postgres. */
  connection: Connection;
  version: string;
  /** What the operator should know, such as that data lie on a disk. */
  warnings: string[];
  stop(): Promise<void>;
}

export interface LocalServerOptions {
  /** At least this major; the lowest one that is found is taken. */
  minimumMajor: number;
  searchPath: string;
  /** Of the plain dump: room for the database is looked for by it. */
  dumpBytes: number;
  signal?: AbortSignal | undefined;
}

/** A restored database, its indexes and its write-ahead log may take so many times the plain dump. */
const roomFactor = 3;
/** An empty cluster with its write-ahead log. */
const clusterBytes = 200e6;

/** Durability is of no use to a database that is thrown away. */
const serverSettings = {
  // In the data directory, not in /dev/shm, where an immediate stop leaves it.
  dynamic_shared_memory_type: 'mmap',
  fsync: 'off',
  synchronous_commit: 'off',
  full_page_writes: 'off',
  wal_level: 'minimal',
  max_wal_senders: '0',
  autovacuum: 'off',
  listen_addresses: "''",
  unix_socket_permissions: '0700',
  // A restore is one transaction, with a lock on all that it makes: room for 130,000, in about 40 MB.
  max_locks_per_transaction: '4096',
  max_connections: '20',
  log_statement: 'none',
  log_min_messages: 'fatal',
  log_min_error_statement: 'panic',
};

/**
 * Starts a server.
 * @throws BackupError POSTGRES_TOOLS_MISSING when its programs are not installed, POSTGRES_UNREACHABLE when it won't start
 */
export async function startLocalServer(options: LocalServerOptions): Promise<LocalServer> {
  const initdb = await locateServer(options);
  const programs = path.dirname(initdb.path);
  const account = await unprivilegedAccount();
  const {folder, warnings} = await makeFolder(options.dumpBytes, account);
  const data = path.join(folder, 'data');
  const clean = atEndOfProcess('"$1/pg_ctl" stop -D "$2" -m immediate; rm -rf "$3"', [programs, data, folder], account);
  try {
    const password = randomBytes(24).toString('hex');
    const run = (file: string, args: string[]) =>
      execute(path.join(programs, file), args, {
        environment: {PATH: options.searchPath, LC_ALL: 'C'},
        cwd: folder,
        account,
        signal: options.signal,
      });
    const passwordFile = path.join(folder, 'password');
    await writeFile(passwordFile, password, {mode: 0o600});
    if (account) await chown(passwordFile, account.uid, account.gid);
    await run('initdb', [
      '-D',
      data,
      '-U',
      'loma',
      '-A',
      'scram-sha-256',
      `--pwfile=${passwordFile}`,
      '-E',
      'UTF8',
      '--locale=C',
      '--no-sync',
    ]);
    await rm(passwordFile);
    const settings = Object.entries({...serverSettings, unix_socket_directories: `'${folder}'`});
    const lines = settings.map(([name, value]) => `${name} = ${value}\n`).join('');
    await writeFile(path.join(data, 'postgresql.auto.conf'), lines);
    await run('pg_ctl', ['start', '-w', '-s', '-D', data, '-l', path.join(folder, 'log')]);
    return {
      connection: {
        host: folder,
        port: '5432',
        user: 'loma',
        database: 'postgres',
        password: new Secret(password),
        environment: {},
        parameters: {},
        warnings: [],
      },
      version: initdb.version.text,
      warnings,
      stop: clean,
    };
  } catch (error) {
    await clean();
    const failure = processFailure(error);
    if (!failure || options.signal?.aborted) throw error;
    throw new BackupError('The throw-away PostgreSQL does not start', {
      code: 'POSTGRES_UNREACHABLE',
      kind: 'postgres',
      reason: `${initdb.path}: ${describeFailure(failure)}`,
      hint: 'Set TEST_DATABASE_URL to a server where scratch databases may be made, and leave out --scratch local.',
    });
  }
}

async function locateServer({minimumMajor, searchPath}: LocalServerOptions): Promise<Tool> {
  const found = await findTools('initdb', searchPath);
  const fitting = found.filter(({version}) => version.major >= minimumMajor);
  const [tool] = fitting.sort((a, b) => a.version.major - b.version.major);
  if (tool) return tool;
  const versions = found.map(({version}) => version.text).join(', ') || 'none';
  throw new BackupError(`No PostgreSQL server ${minimumMajor} or later on this machine`, {
    code: 'POSTGRES_TOOLS_MISSING',
    kind: 'postgres',
    reason: `--scratch local starts one; found: ${versions}`,
    hint: `Install it (Debian and Ubuntu: apt-get install postgresql-${minimumMajor}), or set TEST_DATABASE_URL instead.`,
  });
}

/** PostgreSQL refuses to run as root: then as the account that its package makes, or as nobody. */
async function unprivilegedAccount(): Promise<Account | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const lines = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'));
  const entry = lines.find(([name]) => name === 'postgres') ?? lines.find(([name]) => name === 'nobody');
  if (!entry) throw new Error('PostgreSQL does not run as root, and there is no account postgres or nobody');
  return {uid: Number(entry[2]), gid: Number(entry[3])};
}

async function makeFolder(
  dumpBytes: number,
  account: Account | undefined,
): Promise<{folder: string; warnings: string[]}> {
  const needed = dumpBytes * roomFactor + clusterBytes;
  const memory = '/dev/shm';
  const room = await statfs(memory).then(
    ({bavail, bsize}) => bavail * bsize,
    () => 0,
  );
  const isInMemory = room > needed;
  const folder = await mkdtemp(path.join(isInMemory ? memory : os.tmpdir(), 'loma-backup-'));
  if (account) await chown(folder, account.uid, account.gid);
  const warnings = isInMemory
    ? []
    : [
        `the throw-away database lies on a disk, unencrypted, while it is tried (${folder}): ${memory} has no room for it`,
      ];
  return {folder, warnings};
}

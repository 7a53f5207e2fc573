/** A PostgreSQL server of one's own, for a test that stops, kills or configures it. */
import {randomBytes} from 'node:crypto';
import {appendFile, chown, readFile, rm, writeFile} from 'node:fs/promises';
import path from 'node:path';
import {execa} from 'execa';
import {freePorts} from './free-ports.ts';
import {ensurePrograms} from './packages.ts';
import {type PostgresHandle, postgresHandle} from './postgres-handle.ts';
import {findPostgres, type PostgresPrograms} from './postgres-programs.ts';
import {childrenOf} from './process-children.ts';
import {ServerDirectory} from './server-directory.ts';
import type {ServerProcess} from './server-process.ts';
import {type UserIds, unprivilegedUser} from './unprivileged-user.ts';
import {waitUntil} from './wait-until.ts';

export {createDatabase, runSql, type TestDatabase} from './database.ts';

export interface PostgresOptions {
  /** Lines for postgresql.conf. */
  settings?: Readonly<Record<string, string | number | boolean>>;
  /** Default: the newest on the machine. */
  major?: number;
  /** Instead of what is installed. */
  programs?: PostgresPrograms;
}

export interface PostgresServer extends PostgresHandle {
  /** Ends the server and removes its data; `immediate` without a checkpoint. */
  stop(mode?: 'fast' | 'immediate'): Promise<void>;
  /** The server and its backends vanish, as in a crash: connections are cut, the data stay. */
  kill(): Promise<void>;
  /** Ends the server as an operator does, and leaves its data; `immediate` as in a crash. */
  shutDown(mode: 'fast' | 'immediate'): Promise<void>;
  /** After `kill` or `shutDown`, on the same port with the same data. */
  start(): Promise<void>;
}

/**
 * Nothing here has to survive a power cut, so nothing is flushed to the disk. `synchronous_commit` stays on: off, `kill`
 * lost commits of the last half second, and with fsync off it gained nothing (3,000 commits in 0.7 s either way).
 * `max_wal_size` spares a bench's load the checkpoints.
 */
const defaultSettings = {
  listen_addresses: '127.0.0.1',
  max_connections: 100,
  shared_buffers: '128MB',
  fsync: false,
  full_page_writes: false,
  max_wal_size: '2GB',
  log_min_messages: 'warning',
};

const superuser = 'loma';

export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  if (!options.programs && options.major === undefined) await ensurePrograms(['postgresql']);
  const programs = options.programs ?? (await findPostgres(options.major));
  if (!programs) throw new Error(`There is no PostgreSQL ${options.major} on this machine.`);
  const owner = await unprivilegedUser();
  const directory = await ServerDirectory.create('postgres', owner);
  try {
    const password = randomBytes(16).toString('hex');
    await initialize(programs, directory, owner, password);
    const port = await startOnFreePort(programs, directory, options.settings ?? {});
    return server(programs, directory, port, password);
  } catch (error) {
    await directory.remove();
    throw error;
  }
}

function server(
  programs: PostgresPrograms,
  directory: ServerDirectory,
  port: number,
  password: string,
): PostgresServer {
  const dataDirectory = directory.file('data');
  const handle = postgresHandle({...programs, port, user: superuser, password, dataDirectory});
  const shutDown = async (mode: 'fast' | 'immediate') => {
    for (const postmaster of directory.processes) {
      postmaster.signalLeader(mode === 'fast' ? 'SIGINT' : 'SIGQUIT');
      await postmaster.end();
    }
  };
  return {
    ...handle,
    shutDown,
    async stop(mode = 'fast') {
      await shutDown(mode);
      await directory.remove();
    },
    async kill() {
      for (const postmaster of directory.processes) await killWithBackends(postmaster);
    },
    async start() {
      if (directory.processes.length === 0) await runAfterKill(programs, directory);
    },
  };
}

async function initialize(
  programs: PostgresPrograms,
  directory: ServerDirectory,
  owner: UserIds | undefined,
  password: string,
): Promise<void> {
  const passwordFile = directory.file('password');
  await writeFile(passwordFile, password, {mode: 0o600});
  if (owner) await chown(passwordFile, owner.uid, owner.gid);
  const args = [
    `--pgdata=${directory.file('data')}`,
    `--username=${superuser}`,
    `--pwfile=${passwordFile}`,
    '--auth=scram-sha-256',
    '--encoding=UTF8',
    `--locale=${await locale()}`,
    '--no-sync',
    // Since 14.
    ...(programs.major >= 14 ? ['--no-instructions'] : []),
  ];
  await execa(path.join(programs.binDirectory, 'initdb'), args, {cwd: directory.path, ...owner, env: {LC_ALL: 'C'}});
  await rm(passwordFile);
}

/** C.UTF-8 sorts alike everywhere; an older macOS does not have it. */
async function locale(): Promise<string> {
  const {stdout} = await execa('locale', ['-a'], {reject: false});
  return /^C\.utf-?8$/im.test(stdout ?? '') ? 'C.UTF-8' : 'C';
}

/** Somebody may take the port between our look and the server's: then with another. */
async function startOnFreePort(
  programs: PostgresPrograms,
  directory: ServerDirectory,
  settings: NonNullable<PostgresOptions['settings']>,
): Promise<number> {
  const always = {...defaultSettings, unix_socket_directories: directory.path};
  for (let attempt = 1; ; attempt++) {
    const port = await freePorts(1);
    // The last line for a setting counts.
    const lines = Object.entries({...always, ...settings, port}).map(([name, value]) => `${name} = ${quote(value)}\n`);
    await appendFile(directory.file('data', 'postgresql.conf'), lines.join(''));
    try {
      await run(programs, directory);
      return port;
    } catch (error) {
      const isTaken = /could not create any TCP\/IP sockets|Address already in use/.test(String(error));
      if (!isTaken || attempt === 5) throw error;
      await rm(directory.file('postgres.log'), {force: true});
    }
  }
}

function quote(value: string | number | boolean): string {
  return `'${String(value).replaceAll("'", "''")}'`;
}

async function run(programs: PostgresPrograms, directory: ServerDirectory): Promise<void> {
  const data = directory.file('data');
  const file = path.join(programs.binDirectory, 'postgres');
  const postmaster = directory.start({name: 'postgres', file, args: ['-D', data]});
  await waitUntil(
    async () => {
      if (!postmaster.isRunning) throw new Error(`PostgreSQL did not start.\n${await directory.logTail('postgres')}`);
      return isReady(path.join(data, 'postmaster.pid'), postmaster.pid);
    },
    {what: 'PostgreSQL to be ready', timeoutMs: 60_000},
  );
}

/** A killed backend may hold the shared memory for a moment longer, and PostgreSQL refuses to start beside it. */
async function runAfterKill(programs: PostgresPrograms, directory: ServerDirectory): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await rm(directory.file('postgres.log'), {force: true});
      return await run(programs, directory);
    } catch (error) {
      if (!/pre-existing shared memory block/.test(String(error)) || attempt === 20) throw error;
    }
  }
}

/** As pg_ctl does it: the first line of postmaster.pid is the process, the eighth its state. */
async function isReady(pidFile: string, pid: number | undefined): Promise<boolean> {
  const lines = (await readFile(pidFile, 'utf8').catch(() => '')).split('\n');
  return Number(lines[0]) === pid && lines[7]?.trim() === 'ready';
}

/** Backends are sessions of their own, which would live on for a moment after their postmaster. */
async function killWithBackends(postmaster: ServerProcess): Promise<void> {
  if (postmaster.pid === undefined) return;
  // Stopped, it cannot make another backend while we look.
  postmaster.signalLeader('SIGSTOP');
  const backends = await childrenOf(postmaster.pid);
  postmaster.signalLeader('SIGKILL');
  for (const pid of backends) killIfThere(pid);
  await postmaster.end();
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

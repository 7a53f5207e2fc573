/** The built program as a process of its own, with an environment that holds nothing but what the test says. */
import {readdir, readFile} from 'node:fs/promises';
import path from 'node:path';
import {execa, type Options} from 'execa';
import type {StoreSettings} from '../../src/lib/config.ts';

const root = path.resolve(import.meta.dirname, '../..');
/** `npm test` builds the program before it runs the tests. */
export const program = path.join(root, 'bin/run.js');

export interface CliResult {
  exitCode: number | undefined;
  stdout: string;
  stderr: string;
  /** Everything that was printed. */
  output: string;
}

export type CliEnvironment = Readonly<Record<string, string>>;

/** Starts it; the process can be signalled before it is awaited. */
export function startCli(args: readonly string[], environment: CliEnvironment = {}, options: Options = {}) {
  return execa(process.execPath, [program, ...args], {
    cwd: '/',
    env: {PATH: process.env.PATH ?? '', HOME: '/nonexistent', ...environment},
    extendEnv: false,
    reject: false,
    stdin: 'ignore',
    timeout: 60_000,
    ...options,
  });
}

export async function cli(
  args: readonly string[],
  environment: CliEnvironment = {},
  options: Options = {},
): Promise<CliResult> {
  const {exitCode, stdout, stderr} = await startCli(args, environment, options);
  return {exitCode, stdout: String(stdout), stderr: String(stderr), output: `${stdout}\n${stderr}`};
}

/** The environment that leads to a store. */
export function storeEnvironment(settings: StoreSettings): CliEnvironment {
  if (settings.kind === 'directory') {
    return {LOMA_BACKUP_STORE: `file://${settings.path}`, CLOUDFLARE_R2_BUCKET_BACKUPS: settings.backupsBucket};
  }
  return {
    CLOUDFLARE_R2_ENDPOINT: settings.endpoint,
    CLOUDFLARE_R2_ACCESS_KEY_ID: settings.accessKeyId,
    CLOUDFLARE_R2_SECRET_ACCESS_KEY: settings.secretAccessKey.reveal(),
    CLOUDFLARE_R2_BUCKET_BACKUPS: settings.backupsBucket,
  };
}

/** The command lines of all processes of this machine: what everybody on it can read. */
export async function allCommandLines(): Promise<string> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')));
  return lines.join('\n');
}

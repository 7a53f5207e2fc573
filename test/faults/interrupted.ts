/** The program as a process that is ended at a random moment, and what it left on this machine. */
import {mkdir, mkdtemp, readdir, readFile, rm} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import {expect} from '@jest/globals';
import {type CliEnvironment, startCli} from '../support/cli.ts';
import {waitUntil} from '../support/wait-until.ts';

export const signals = ['SIGINT', 'SIGTERM', 'SIGKILL'] as const;
export type Signal = (typeof signals)[number];

export interface Ending {
  exitCode: number | undefined;
  signal: string | undefined;
  stdout: string;
  stderr: string;
  durationMs: number;
}

/** Folders of one process alone: its home, its temporary files, its working directory. */
export class OwnFolders {
  readonly root: string;

  private constructor(root: string) {
    this.root = root;
  }

  static async create(): Promise<OwnFolders> {
    const folders = new OwnFolders(await mkdtemp(path.join(os.tmpdir(), 'loma-test-run-')));
    for (const name of ['home', 'tmp', 'cwd']) await mkdir(path.join(folders.root, name), {mode: 0o777});
    return folders;
  }

  get environment(): CliEnvironment {
    return {HOME: path.join(this.root, 'home'), TMPDIR: path.join(this.root, 'tmp')};
  }

  get cwd(): string {
    return path.join(this.root, 'cwd');
  }

  async files(): Promise<string[]> {
    const entries = await readdir(this.root, {recursive: true, withFileTypes: true});
    return entries.filter((entry) => !entry.isDirectory()).map((entry) => path.join(entry.parentPath, entry.name));
  }

  remove(): Promise<void> {
    return rm(this.root, {recursive: true, force: true});
  }
}

/** Runs a command, and ends it after so many milliseconds if it still runs then. */
export async function runAndSignal(
  args: readonly string[],
  environment: CliEnvironment,
  folders: OwnFolders,
  end?: {signal: Signal; afterMs: number},
): Promise<Ending> {
  const started = performance.now();
  const child = startCli(args, {...environment, ...folders.environment}, {cwd: folders.cwd, timeout: 180_000});
  const finished = new AbortController();
  if (end) {
    void delay(end.afterMs, undefined, {signal: finished.signal}).then(
      () => child.kill(end.signal),
      () => undefined,
    );
  }
  const {exitCode, signal, stdout, stderr} = await child;
  finished.abort();
  return {
    exitCode,
    signal,
    stdout: String(stdout),
    stderr: String(stderr),
    durationMs: Math.round(performance.now() - started),
  };
}

/** The exit code fits the signal, unless the command was done before, or had not begun to listen. */
export function expectFittingEnd(ending: Ending, signal: Signal): void {
  if (ending.signal) expect(ending.signal).toBe(signal);
  else expect([0, {SIGINT: 130, SIGTERM: 143, SIGKILL: 137}[signal]]).toContain(ending.exitCode);
}

/** Waits until no process has one of these texts on its command line: the children of a killed one end by themselves. */
export async function untilNoProcessNames(...texts: string[]): Promise<void> {
  let found: string[] = [];
  await waitUntil(
    async () => {
      found = (await commandLines()).filter((line) => texts.some((text) => line.includes(text)));
      return found.length === 0;
    },
    {what: 'children to end'},
  ).catch((error: unknown) => {
    throw new Error(`left behind: ${found.join('; ')}`, {cause: error});
  });
}

async function commandLines(): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && name !== String(process.pid));
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')));
  // A server's own backends are named after their database, and are looked at in the server.
  return lines.filter((line) => !line.startsWith('postgres: ')).map((line) => line.replaceAll('\0', ' '));
}

/** The temporary folder of a server, with the processes that run in it: they go together. */
import {chown, mkdtemp, readFile, rm} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {type Command, ServerProcess} from './server-process.ts';
import type {UserIds} from './unprivileged-user.ts';
import {Watchdog} from './watchdog.ts';

export class ServerDirectory {
  readonly path: string;
  readonly #watchdog: Watchdog;
  readonly #owner: UserIds | undefined;
  readonly #processes = new Set<ServerProcess>();

  private constructor(directory: string, owner: UserIds | undefined) {
    this.path = directory;
    this.#owner = owner;
    this.#watchdog = new Watchdog(directory);
  }

  /** @param owner who runs the processes; by default whoever runs the tests. */
  static async create(name: string, owner?: UserIds): Promise<ServerDirectory> {
    const directory = await mkdtemp(path.join(os.tmpdir(), `loma-test-${name}-`));
    if (owner) await chown(directory, owner.uid, owner.gid);
    return new ServerDirectory(directory, owner);
  }

  file(...names: string[]): string {
    return path.join(this.path, ...names);
  }

  /** Starts a server process whose output goes to NAME.log here. */
  start(command: Command): ServerProcess {
    const started = new ServerProcess(command, this.path, this.#owner);
    this.#processes.add(started);
    const {pid} = started;
    if (pid !== undefined) this.#watchdog.watch(pid);
    void started.exited.then(() => {
      this.#processes.delete(started);
      if (pid !== undefined) this.#watchdog.forget(pid);
    });
    return started;
  }

  /** The processes that run, in the order in which they were started. */
  get processes(): ServerProcess[] {
    return [...this.#processes];
  }

  signalAll(signal: NodeJS.Signals): void {
    for (const each of this.processes) each.signal(signal);
  }

  /** Ends what runs here at once, and waits for it. */
  async killAll(): Promise<void> {
    const running = this.processes;
    this.signalAll('SIGKILL');
    await Promise.all(running.map((each) => each.end()));
  }

  /** Ends what still runs here and removes the folder. */
  async remove(): Promise<void> {
    await this.killAll();
    // A child of a killed server may write a last file.
    await rm(this.path, {recursive: true, force: true, maxRetries: 5, retryDelay: 100});
    this.#watchdog.dismiss();
  }

  /** The last lines of these logs, for an error. */
  async logTail(...names: string[]): Promise<string> {
    const tails = names.map(async (name) => {
      const text = await readFile(this.file(`${name}.log`), 'utf8').catch(() => '');
      return text.trim() && `${name}: ${text.trim().split('\n').slice(-12).join('\n')}`;
    });
    return (await Promise.all(tails)).filter(Boolean).join('\n');
  }
}

/** One long-running child process. */
import {type ChildProcess, spawn} from 'node:child_process';
import {closeSync, openSync} from 'node:fs';
import path from 'node:path';
import type {UserIds} from './unprivileged-user.ts';

export interface Command {
  /** Names the log. */
  name: string;
  file: string;
  args: readonly string[];
  env?: NodeJS.ProcessEnv;
}

/**
 * It leads a process group of its own, so that a Ctrl-C in the terminal does not reach it and a signal reaches its
 * workers. It does not keep Node running: a script that forgets to stop it still ends, and the watchdog clears up.
 */
export class ServerProcess {
  readonly name: string;
  readonly exited: Promise<void>;
  isRunning = true;
  readonly #child: ChildProcess;

  constructor(command: Command, directory: string, owner: UserIds | undefined) {
    this.name = command.name;
    const log = openSync(path.join(directory, `${command.name}.log`), 'a');
    this.#child = spawn(command.file, command.args, {
      cwd: directory,
      env: {...process.env, LC_ALL: 'C', ...command.env},
      detached: true,
      stdio: ['ignore', log, log],
      ...owner,
    });
    closeSync(log);
    this.exited = new Promise((resolve) => {
      const finish = () => {
        this.isRunning = false;
        resolve();
      };
      this.#child.once('exit', finish);
      this.#child.once('error', finish);
    });
    this.#child.unref();
  }

  /** Undefined when the program could not be run at all. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** To the process and all of its group. */
  signal(signal: NodeJS.Signals): void {
    if (!this.isRunning || this.pid === undefined) return;
    try {
      process.kill(-this.pid, signal);
    } catch (error) {
      // ESRCH: it has just ended.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  /** To the process alone. */
  signalLeader(signal: NodeJS.Signals): void {
    if (this.isRunning) this.#child.kill(signal);
  }

  /** Waits for the end, and keeps Node running so long. */
  async end(): Promise<void> {
    if (!this.isRunning) return;
    this.#child.ref();
    await this.exited;
  }
}

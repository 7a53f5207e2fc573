/** A script's work with its clearing up, and the programs that it runs: on every way out, nothing of it is left. */
import {spawn} from 'node:child_process';

export interface Script {
  /** Aborted by Ctrl-C and the like; its reason is the `Interrupted` to throw. */
  signal: AbortSignal;
  /** To be done at the end, however it comes; the last one first. */
  defer(clearUp: () => Promise<unknown>): void;
}

class Interrupted extends Error {
  readonly signalName: NodeJS.Signals;

  constructor(signalName: NodeJS.Signals) {
    super(`Interrupted by ${signalName}`);
    this.signalName = signalName;
  }
}

const exitCodes: Partial<Record<NodeJS.Signals, number>> = {SIGHUP: 129, SIGINT: 130, SIGTERM: 143};

/** npm passes on a Ctrl-C that the terminal has sent already: a person is not that quick. */
const echoMs = 500;

/**
 * Runs a script's work, then clears up, and sets the exit code. A Ctrl-C does not wait for what is under way, except for
 * programs started with `run`, which may have something to undo. At the second one it ends at once: what runs in a
 * `ServerDirectory` is cleared up by its watchdog even then.
 */
export async function runScript(work: (script: Script) => Promise<void>): Promise<void> {
  const clearing: (() => Promise<unknown>)[] = [];
  const controller = new AbortController();
  const {signal} = controller;
  const interrupted = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), {once: true});
  });
  let firstMs = 0;
  const onSignal = (name: NodeJS.Signals) => {
    if (!signal.aborted) {
      firstMs = performance.now();
      controller.abort(new Interrupted(name));
    } else if (performance.now() - firstMs > echoMs) {
      process.exit(exitCodes[name]);
    }
  };
  const names = Object.keys(exitCodes) as NodeJS.Signals[];
  for (const name of names) process.on(name, onSignal);
  try {
    await Promise.race([work({signal, defer: (clearUp) => void clearing.unshift(clearUp)}), interrupted]);
  } catch (error) {
    process.exitCode = (error instanceof Interrupted && exitCodes[error.signalName]) || 1;
    await Promise.allSettled(running);
    process.stderr.write(`\n${error instanceof Interrupted ? '' : 'Error: '}${messageOf(error)}\n`);
  }
  for (const clearUp of clearing) {
    await clearUp().catch((error) => process.stderr.write(`Clearing up: ${messageOf(error)}\n`));
  }
  // Something that was not waited for may still be under way.
  if (signal.aborted) process.exit();
  for (const name of names) process.off(name, onSignal);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Programs that `run` has started. */
const running = new Set<Promise<unknown>>();

export interface RunOptions {
  env: NodeJS.ProcessEnv;
  signal: AbortSignal;
  /** `inherit`: it writes where this process writes. `quiet`: only its errors are kept. */
  output: 'inherit' | 'quiet';
  cwd?: string;
  /** Is told the process number. */
  onStart?: (pid: number) => void;
}

/**
 * Runs a program to its end, in a process group of its own: a Ctrl-C reaches it once, through us.
 * @throws Error when it fails, or the interruption
 */
export async function run(file: string, args: readonly string[], options: RunOptions): Promise<void> {
  const ending = runToEnd(file, args, options);
  running.add(ending);
  try {
    await ending;
  } finally {
    running.delete(ending);
  }
}

async function runToEnd(file: string, args: readonly string[], options: RunOptions): Promise<void> {
  const {signal, output} = options;
  signal.throwIfAborted();
  const stdio = output === 'inherit' ? ('inherit' as const) : (['ignore', 'ignore', 'pipe'] as const);
  const child = spawn(file, args, {
    env: options.env,
    detached: true,
    stdio: typeof stdio === 'string' ? stdio : [...stdio],
    ...(options.cwd === undefined ? {} : {cwd: options.cwd}),
  });
  let errors = '';
  child.stderr?.on('data', (text: Buffer) => {
    errors = (errors + text).slice(-2000);
  });
  const {pid} = child;
  const passOn = () => {
    const name = signal.reason instanceof Interrupted ? signal.reason.signalName : 'SIGTERM';
    try {
      if (pid !== undefined) process.kill(-pid, name);
    } catch {
      // It has just ended.
    }
  };
  signal.addEventListener('abort', passOn, {once: true});
  try {
    if (pid !== undefined) options.onStart?.(pid);
    const ending = await new Promise<string | undefined>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, by) =>
        resolve(code === 0 ? undefined : by ? `was ended by ${by}` : `exit code ${code}`),
      );
    });
    signal.throwIfAborted();
    if (ending) throw new Error([`${file} ${args[0] ?? ''}: ${ending}`, errors.trim()].filter(Boolean).join('\n'));
  } finally {
    signal.removeEventListener('abort', passOn);
  }
}

/** Files that hold the values of settings: NAME_FILE=/path, and flags that name such a file. */
import {constants, openSync, readFileSync, statSync} from 'node:fs';
import {Socket} from 'node:net';
import {text} from 'node:stream/consumers';
import {interruption} from './errors.ts';

/** How long a pipe may take, in milliseconds: somebody may have to unlock what writes into it. */
const patienceMs = 60_000;

/** Each file is read once, whoever asks for it: what comes out of a pipe comes once. */
export class SecretFiles {
  readonly #contents = new Map<string, {text: string} | {error: unknown}>();

  /** Reads the files that were not read before; an error is kept for who asks. @throws BackupError INTERRUPTED */
  async read(files: readonly string[], signal: AbortSignal): Promise<void> {
    const missing = [...new Set(files)].filter((file) => !this.#contents.has(file));
    await Promise.all(
      missing.map(async (file) => {
        try {
          this.#contents.set(file, {text: await readSecretFile(file, signal)});
        } catch (error) {
          this.#contents.set(file, {error});
        }
      }),
    );
    const interrupted = interruption(signal);
    if (interrupted) throw interrupted;
  }

  /** What a file held when it was read. @throws what its reading has thrown */
  contents(file: string): string {
    const contents = this.#contents.get(file) ?? {error: new Error(`it was not read: ${file}`)};
    if ('error' in contents) throw contents.error;
    return contents.text;
  }
}

/** @throws Error when it cannot be read, when the signal is aborted, or when a pipe does not end in time */
export async function readSecretFile(file: string, signal: AbortSignal, timeoutMs = patienceMs): Promise<string> {
  if (!statSync(file).isFIFO()) return readFileSync(file, 'utf8');
  // A pipe without a writer is waited for where it is opened, in a thread that no signal ends, unless it is opened so.
  const fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  const timeout = AbortSignal.timeout(timeoutMs);
  const pipe = new Socket({fd, readable: true, writable: false, signal: AbortSignal.any([signal, timeout])});
  try {
    return await text(pipe);
  } catch (error) {
    if (!timeout.aborted || signal.aborted) throw error;
    throw new Error(`the pipe ${file} was not written and closed within ${timeoutMs / 1000} s`);
  }
}

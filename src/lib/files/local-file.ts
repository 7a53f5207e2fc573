/** A local file that is read while others may change it: it is what it was at the start, or it is not used. */
import {createHmac} from 'node:crypto';
import {type BigIntStats, constants} from 'node:fs';
import {type FileHandle, lstat, open, unlink} from 'node:fs/promises';
import {BackupError, codeOf, messageOf} from '../errors.ts';

const chunkBytes = 1 << 20;

/** A file that was opened, and what it was then. */
export class LocalFile {
  readonly path: string;
  readonly #handle: FileHandle;
  readonly #facts: BigIntStats;

  private constructor(file: string, handle: FileHandle, facts: BigIntStats) {
    this.path = file;
    this.#handle = handle;
    this.#facts = facts;
  }

  /**
   * Neither follows a symbolic link nor waits for the other end of a pipe that took a file's place.
   * @throws BackupError FILE_UNREADABLE
   */
  static async open(file: string): Promise<LocalFile> {
    let handle: FileHandle | undefined;
    try {
      handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      const facts = await handle.stat({bigint: true});
      if (!facts.isFile()) throw new Error('it is no regular file any more');
      return new LocalFile(file, handle, facts);
    } catch (error) {
      await handle?.close();
      throw unreadable(error);
    }
  }

  get sizeBytes(): number {
    return Number(this.#facts.size);
  }

  /** Seconds since 1970 with nine decimals. */
  get mtime(): string {
    const ns = this.#facts.mtimeNs;
    const sign = ns < 0n ? '-' : '';
    const digits = String(ns < 0n ? -ns : ns).padStart(10, '0');
    return `${sign}${digits.slice(0, -9)}.${digits.slice(-9)}`;
  }

  /**
   * Reads it to its end. The last bytes are given only when the file is still what it was at the start.
   * @throws BackupError FILE_CHANGED or FILE_UNREADABLE
   */
  async *read(): AsyncGenerator<Buffer> {
    let held: Buffer | undefined;
    let position = 0;
    for (;;) {
      const bytes = await this.readAt(position, chunkBytes);
      if (bytes.length === 0) break;
      position += bytes.length;
      if (position > this.sizeBytes) throw changed('it grew while it was read');
      if (held) yield held;
      held = bytes;
    }
    if (position < this.sizeBytes) throw changed('it was cut short while it was read');
    await this.requireUnchanged();
    if (held) yield held;
  }

  /** At most so many bytes from a place; fewer at its end. */
  async readAt(position: number, length: number): Promise<Buffer> {
    // One byte more than is expected, so that growth is seen.
    const wanted = Math.min(length, Math.max(this.sizeBytes + 1 - position, 1));
    const buffer = Buffer.allocUnsafe(wanted);
    let filled = 0;
    try {
      while (filled < wanted) {
        const {bytesRead} = await this.#handle.read(buffer, filled, wanted - filled, position + filled);
        if (bytesRead === 0) break;
        filled += bytesRead;
      }
    } catch (error) {
      throw unreadable(error);
    }
    return buffer.subarray(0, filled);
  }

  /** HMAC-SHA-256 of its content, hex. */
  async digest(key: Buffer): Promise<string> {
    const hash = createHmac('sha256', key);
    for await (const chunk of this.read()) hash.update(chunk);
    return hash.digest('hex');
  }

  /** The same content as `read`, held to a digest that was made before: a change that left no other trace. */
  async *readAgain(key: Buffer, digest: string): AsyncGenerator<Buffer> {
    const hash = createHmac('sha256', key);
    let held: Buffer | undefined;
    for await (const chunk of this.read()) {
      if (held) yield held;
      hash.update(chunk);
      held = chunk;
    }
    if (hash.digest('hex') !== digest) throw changed('its content changed while it was read');
    if (held) yield held;
  }

  /** @throws BackupError FILE_CHANGED */
  async requireUnchanged(): Promise<void> {
    const now = await this.#handle.stat({bigint: true}).catch((error) => {
      throw unreadable(error);
    });
    if (!isSame(this.#facts, now)) throw changed('its size or time changed while it was read');
  }

  /**
   * Removes it, if it is still under its name and nothing was changed since it was opened.
   * @throws BackupError FILE_CHANGED, or FILE_UNREADABLE when it cannot be removed
   */
  async remove(): Promise<void> {
    let now: BigIntStats;
    try {
      now = await lstat(this.path, {bigint: true});
    } catch (error) {
      throw changed(messageOf(error));
    }
    if (!isSame(this.#facts, now)) throw changed('it is another file, or was changed, since it was read: it was kept');
    try {
      await unlink(this.path);
    } catch (error) {
      throw new BackupError('The local file could not be removed', {
        code: 'FILE_UNREADABLE',
        kind: 'unexpected',
        reason: messageOf(error),
        hint: 'May this user delete in its directory?',
      });
    }
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** The change time (ctime) is the kernel's: no program sets it back. */
function isSame(a: BigIntStats, b: BigIntStats): boolean {
  return a.dev === b.dev && a.ino === b.ino && a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs;
}

function changed(reason: string): BackupError {
  return new BackupError('The file changed', {
    code: 'FILE_CHANGED',
    kind: 'unexpected',
    reason,
    hint: 'It is neither published nor deleted. Run it again when nobody writes to it.',
  });
}

function unreadable(error: unknown): BackupError {
  if (error instanceof BackupError) return error;
  const reason = codeOf(error) === 'ELOOP' ? 'a symbolic link took its place' : messageOf(error);
  return new BackupError('The file cannot be read', {
    code: 'FILE_UNREADABLE',
    kind: 'unexpected',
    reason,
    hint: 'Is it there, and may this user read it?',
    cause: error,
  });
}

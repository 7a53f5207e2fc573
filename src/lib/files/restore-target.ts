/** Files written below one directory, whatever their names say and whatever links lie in it. */
import {randomBytes} from 'node:crypto';
import {constants} from 'node:fs';
import {type FileHandle, link, lstat, mkdir, open, realpath, rename, unlink} from 'node:fs/promises';
import path from 'node:path';
import {BackupError, codeOf, messageOf} from '../errors.ts';
import {reasonToRefuse} from './file-names.ts';

export class RestoreTarget {
  readonly #root: string;

  private constructor(root: string) {
    this.#root = root;
  }

  /** Makes the directory if it is not there. */
  static async open(directory: string): Promise<RestoreTarget> {
    try {
      await mkdir(directory, {recursive: true, mode: 0o700});
      return new RestoreTarget(await realpath(directory));
    } catch (error) {
      throw new BackupError(`Cannot write to ${directory}`, {
        code: 'OUTPUT_FAILED',
        kind: 'configuration',
        reason: messageOf(error),
        hint: 'Name a directory that this user may write to: --to DIR.',
      });
    }
  }

  /**
   * The place of a name. Every directory on the way is a real one: a link in the way is refused, not followed.
   * @throws BackupError FILE_REFUSED
   */
  async placeOf(name: string, options: {makeFolders: boolean}): Promise<string> {
    const reason = reasonToRefuse(name);
    if (reason !== undefined) throw refused(reason);
    const parts = name.split('/');
    let at = this.#root;
    for (const part of parts.slice(0, -1)) {
      at = path.join(at, part);
      if (options.makeFolders) await makeFolder(at);
      const facts = await lstat(at).catch(() => undefined);
      if (facts?.isSymbolicLink()) throw refused(`${at} is a symbolic link, which is not followed`);
      if (facts && !facts.isDirectory()) throw refused(`${at} is not a directory`);
    }
    return path.join(at, parts.at(-1) ?? '');
  }

  /**
   * Writes a file beside its name, and gives it the name when `fill` has ended well. 0600, with the given time.
   * @param mtime in seconds since 1970; undefined: now
   * @throws BackupError FILE_REFUSED when something has that name and is not to be replaced
   */
  async write(
    name: string,
    options: {mtime: number | undefined; overwrite: boolean},
    fill: (handle: FileHandle) => Promise<void>,
  ): Promise<void> {
    const place = await this.placeOf(name, {makeFolders: true});
    // Not after the file's own name, which may have all of a file system's 255 bytes.
    const partial = path.join(path.dirname(place), `.loma-restore.${randomBytes(8).toString('hex')}.partial`);
    try {
      const handle = await open(
        partial,
        constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
        0o600,
      );
      try {
        await fill(handle);
        if (options.mtime !== undefined) await handle.utimes(options.mtime, options.mtime);
        await handle.sync();
      } finally {
        await handle.close();
      }
      if (options.overwrite) {
        await rename(partial, place);
      } else {
        // A link fails where a rename would overwrite.
        await link(partial, place);
        await unlink(partial);
      }
    } catch (error) {
      await unlink(partial).catch(() => undefined);
      if (error instanceof BackupError) throw error;
      if (codeOf(error) === 'EEXIST') throw refused('something took its name meanwhile, and was kept');
      throw new BackupError('The file cannot be written', {
        code: 'OUTPUT_FAILED',
        kind: 'unexpected',
        reason: messageOf(error),
        hint: 'Is there room, and may this user write there?',
        cause: error,
      });
    }
  }
}

async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, {mode: 0o700});
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return;
    throw new BackupError('The directory cannot be made', {
      code: 'OUTPUT_FAILED',
      kind: 'unexpected',
      reason: messageOf(error),
    });
  }
}

function refused(reason: string): BackupError {
  return new BackupError('The file is not written', {
    code: 'FILE_REFUSED',
    kind: 'refused',
    reason,
    hint: 'Restore into an empty directory (--to DIR).',
  });
}

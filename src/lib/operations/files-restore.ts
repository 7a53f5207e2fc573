import {createHmac} from 'node:crypto';
import type {Stats} from 'node:fs';
import {type FileHandle, lstat} from 'node:fs/promises';
import {pipeline} from 'node:stream/promises';
import pMap from 'p-map';
import type {KeySettings, StoreSettings} from '../config.ts';
import {integrityError} from '../encrypt/frame-check.ts';
import {keyring} from '../encrypt/keys.ts';
import {asBackupError, BackupError, type ErrorCode, interruption} from '../errors.ts';
import {LocalFile} from '../files/local-file.ts';
import type {FileFacts} from '../files/metadata.ts';
import {RestoreTarget} from '../files/restore-target.ts';
import {asStep, type Step} from '../observer.ts';
import {openStores} from '../upload/open-store.ts';
import type {ObjectStore} from '../upload/store.ts';
import {type ListedFile, readFiles} from './files-list.ts';
import {describeFile, type FileObject, type FilesKeyring, filesKeyring, holdsSame, openFile} from './files-objects.ts';
import type {Runtime} from './runtime.ts';

export interface FilesRestoreSettings {
  store: StoreSettings;
  keys: KeySettings;
  /** Of names: `uploads/2024/`. */
  prefix?: string | undefined;
  /** Files come to lie in it under their names: `<to>/<dir>/<path>`. */
  to: string;
  /** Replace files that hold something else. */
  overwrite: boolean;
  concurrency: number;
}

export interface RestoredFile {
  key: string;
  name: string;
  /** `conflict`: a local file holds something else, and was kept. */
  action: 'restored' | 'unchanged' | 'conflict' | 'failed';
  sizeBytes: number;
  /** Authentic, but with no digest and time of its own to be held to: metadata are missing or altered. */
  isUnchecked: boolean;
  code?: ErrorCode;
  reason?: string;
}

export interface FilesRestoreResult {
  to: string;
  durationMs: number;
  restored: number;
  restoredBytes: number;
  unchanged: number;
  conflicts: number;
  unchecked: number;
  failed: number;
  files: RestoredFile[];
}

export const filesRestoreSteps: readonly Step[] = [
  {id: 'catalog', title: 'See what is in the bucket'},
  {id: 'files', title: 'Download and decrypt'},
];

/**
 * Brings files back. One that fails stops no other: see the result. A file gets its name when all of it was authentic, so
 * that an interrupted restore is continued by running it again.
 */
export async function restoreFiles(settings: FilesRestoreSettings, runtime: Runtime): Promise<FilesRestoreResult> {
  const started = performance.now();
  const {observer, signal} = runtime;
  const keys = filesKeyring(keyring(settings.keys.current, settings.keys.previous));
  const stores = openStores(settings.store);
  try {
    const found = await asStep(
      observer,
      'catalog',
      () => readFiles(stores.files, settings.prefix, keys, runtime),
      ({files}) => `${files.length} files`,
    );
    const target = await RestoreTarget.open(settings.to);
    const restore = new FilesRestore(stores.files, target, keys, found.index, found.files, settings, runtime);
    const files = await asStep(observer, 'files', () => restore.run());
    const interrupted = interruption(signal);
    if (interrupted) {
      throw new BackupError(interrupted.message, {
        code: 'INTERRUPTED',
        kind: interrupted.kind,
        reason: `${files.filter(({action}) => action === 'restored').length} files were restored before; nothing half-done was left`,
        hint: 'Run it again: what is there is skipped.',
      });
    }
    const count = (action: RestoredFile['action']) => files.filter((file) => file.action === action).length;
    return {
      to: settings.to,
      durationMs: Math.round(performance.now() - started),
      restored: count('restored'),
      restoredBytes: files.reduce((sum, {action, sizeBytes}) => sum + (action === 'restored' ? sizeBytes : 0), 0),
      unchanged: count('unchanged'),
      conflicts: count('conflict'),
      unchecked: files.filter(({isUnchecked}) => isUnchecked).length,
      failed: count('failed'),
      files,
    };
  } finally {
    stores.close();
  }
}

class FilesRestore {
  readonly #store: ObjectStore;
  readonly #target: RestoreTarget;
  readonly #keys: FilesKeyring;
  readonly #index: ReadonlyMap<string, FileFacts>;
  readonly #files: readonly ListedFile[];
  readonly #settings: FilesRestoreSettings;
  readonly #runtime: Runtime;
  readonly #totalBytes: number;
  #doneBytes = 0;
  #doneFiles = 0;

  constructor(
    store: ObjectStore,
    target: RestoreTarget,
    keys: FilesKeyring,
    index: ReadonlyMap<string, FileFacts>,
    files: readonly ListedFile[],
    settings: FilesRestoreSettings,
    runtime: Runtime,
  ) {
    this.#store = store;
    this.#target = target;
    this.#keys = keys;
    this.#index = index;
    this.#files = files;
    this.#settings = settings;
    this.#runtime = runtime;
    this.#totalBytes = files.reduce((sum, {storedBytes}) => sum + storedBytes, 0);
  }

  async run(): Promise<RestoredFile[]> {
    const results = await pMap(this.#files, (file) => this.#restoreOne(file), {
      concurrency: this.#settings.concurrency,
    });
    return results.filter((result) => result !== undefined);
  }

  /** Never fails. Undefined: it was interrupted. */
  async #restoreOne(listed: ListedFile): Promise<RestoredFile | undefined> {
    if (this.#runtime.signal?.aborted) return undefined;
    const {key, name, storedBytes} = listed;
    try {
      const object = await describeFile(this.#store, key, this.#keys.all, this.#index);
      if (!object) throw new Error('the object is gone');
      return await this.#restore(object);
    } catch (error) {
      if (this.#runtime.signal?.aborted) return undefined;
      const {code, reason, message} = asBackupError(error);
      return {key, name, action: 'failed', sizeBytes: 0, isUnchecked: false, code, reason: reason ?? message};
    } finally {
      this.#doneBytes += storedBytes;
      this.#doneFiles += 1;
      this.#runtime.observer({
        type: 'progress',
        step: 'files',
        bytes: this.#doneBytes,
        totalBytes: this.#totalBytes,
        items: this.#doneFiles,
        totalItems: this.#files.length,
      });
    }
  }

  async #restore(object: FileObject): Promise<RestoredFile> {
    const {key, name, facts, problem} = object;
    const base = {key, name, sizeBytes: facts?.sizeBytes ?? 0, isUnchecked: !facts};
    const note = facts ? {} : {reason: problem ?? 'it has no metadata'};
    const place = await this.#target.placeOf(name, {makeFolders: false});
    const existing = await lstat(place).catch(() => undefined);
    if (existing) {
      if (await this.#isSame(object, place, existing)) return {...base, ...note, action: 'unchanged'};
      if (!this.#settings.overwrite) {
        const reason = `${place} holds something else, and was kept`;
        return {...base, action: 'conflict', code: 'FILE_DIFFERS', reason};
      }
    }
    const options = {mtime: facts && Number(facts.mtime), overwrite: this.#settings.overwrite};
    let sizeBytes = 0;
    await this.#target.write(name, options, async (handle) => {
      sizeBytes = await this.#fill(handle, object);
    });
    return {...base, ...note, sizeBytes, action: 'restored'};
  }

  async #isSame(object: FileObject, place: string, existing: Stats): Promise<boolean> {
    const {facts, keys} = object;
    if (!existing.isFile() || (facts && facts.sizeBytes !== existing.size)) return false;
    const local = LocalFile.open(place);
    try {
      if (facts && keys) return (await local.digest(keys.digests)) === facts.digest;
      return await holdsSame(this.#store, object, local, this.#keys, this.#runtime.signal);
    } finally {
      local.close();
    }
  }

  /** Writes the content and holds it to its digest. @returns its size */
  async #fill(handle: FileHandle, object: FileObject): Promise<number> {
    const {signal} = this.#runtime;
    const {stages} = await openFile(this.#store, object, this.#keys, signal);
    const check = contentCheck(object);
    try {
      await pipeline(
        ...stages,
        async (content: AsyncIterable<Buffer>) => {
          for await (const chunk of content) {
            check.write(chunk);
            await handle.writeFile(chunk);
          }
        },
        signal ? {signal} : {},
      );
    } catch (error) {
      throw interruption(signal) ?? error;
    }
    return check.end();
  }
}

/** Counts and digests what flows by, and holds it to what the object's metadata say, if there are any. */
export function contentCheck({key, facts, keys}: FileObject): {write(chunk: Buffer): void; end(): number} {
  const hash = keys && createHmac('sha256', keys.digests);
  let bytes = 0;
  return {
    write(chunk) {
      hash?.update(chunk);
      bytes += chunk.length;
    },
    /** @throws BackupError DECRYPTION_FAILED when it is another content than the metadata say */
    end() {
      if (facts && (facts.sizeBytes !== bytes || hash?.digest('hex') !== facts.digest)) {
        throw integrityError(key, 'its content is another than its metadata say: an older object, or older metadata');
      }
      return bytes;
    },
  };
}

import type {Stats} from 'node:fs';
import {lstat} from 'node:fs/promises';
import {keyring} from '../encrypt/keys.ts';
import {BackupError, type ErrorCode, interruption} from '../errors.ts';
import {LocalFile} from '../files/local-file.ts';
import {RestoreTarget} from '../files/restore-target.ts';
import {asStep, type Step} from '../observer.ts';
import {openStores} from '../upload/open-store.ts';
import type {ObjectStore} from '../upload/store.ts';
import {eachFile, type PrefixSettings} from './files-each.ts';
import {findFiles, type MissingFile, missingReason} from './files-list.ts';
import {type FileObject, type FilesKeyring, filesKeyring, holdsSame, readContent} from './files-objects.ts';
import type {Runtime} from './runtime.ts';

export interface FilesRestoreSettings extends PrefixSettings {
  /** Files come to lie in it under their names: `<to>/<dir>/<path>`. */
  to: string;
  /** Replace files that hold something else. */
  overwrite: boolean;
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
 * @throws BackupError FILES_NOT_FOUND, of the store, or the interruption
 */
export async function restoreFiles(settings: FilesRestoreSettings, runtime: Runtime): Promise<FilesRestoreResult> {
  const started = performance.now();
  const {observer, signal} = runtime;
  const keys = filesKeyring(keyring(settings.keys.current, settings.keys.previous));
  using stores = await openStores(settings.store);
  const found = await asStep(
    observer,
    'catalog',
    () => findFiles(stores.files, settings.prefix, keys, 'storage', runtime),
    ({files}) => `${files.length} files`,
  );
  const target = await RestoreTarget.open(settings.to);
  const restore = new FilesRestore(stores.files, target, keys, {overwrite: settings.overwrite, signal});
  const pass = {store: stores.files, keys, ...found, concurrency: settings.concurrency, step: 'files'};
  const done = await asStep(observer, 'files', () =>
    eachFile<RestoredFile>(
      pass,
      runtime,
      (object) => restore.restore(object),
      ({key, name}, {code, reason, message}) => {
        return {key, name, action: 'failed', sizeBytes: 0, isUnchecked: false, code, reason: reason ?? message};
      },
    ),
  );
  const interrupted = interruption(signal);
  if (interrupted) {
    throw new BackupError(interrupted.message, {
      code: 'INTERRUPTED',
      kind: interrupted.kind,
      reason: `${done.filter(({action}) => action === 'restored').length} files were restored before; nothing half-done was left`,
      hint: 'Run it again: what is there is skipped.',
    });
  }
  const files = [...done, ...found.missing.map(goneFile)];
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
}

function goneFile({key, name}: MissingFile): RestoredFile {
  const why = {code: 'OBJECT_NOT_FOUND', reason: missingReason} as const;
  return {key, name, action: 'failed', sizeBytes: 0, isUnchecked: false, ...why};
}

class FilesRestore {
  readonly #store: ObjectStore;
  readonly #target: RestoreTarget;
  readonly #keys: FilesKeyring;
  readonly #overwrite: boolean;
  readonly #signal: AbortSignal | undefined;

  constructor(
    store: ObjectStore,
    target: RestoreTarget,
    keys: FilesKeyring,
    options: {overwrite: boolean; signal: AbortSignal | undefined},
  ) {
    this.#store = store;
    this.#target = target;
    this.#keys = keys;
    this.#overwrite = options.overwrite;
    this.#signal = options.signal;
  }

  async restore(object: FileObject): Promise<RestoredFile> {
    const {key, name, facts, problem} = object;
    const base = {key, name, sizeBytes: facts?.sizeBytes ?? 0, isUnchecked: !facts};
    const note = facts ? {} : {reason: problem ?? 'it has no metadata'};
    const place = await this.#target.placeOf(name, {makeFolders: false});
    const existing = await lstat(place).catch(() => undefined);
    if (existing) {
      if (await this.#isSame(object, place, existing)) return {...base, ...note, action: 'unchanged'};
      if (!this.#overwrite) {
        const reason = `${place} holds something else, and was kept`;
        return {...base, action: 'conflict', code: 'FILE_DIFFERS', reason};
      }
    }
    const options = {mtime: facts && Number(facts.mtime), overwrite: this.#overwrite};
    let sizeBytes = 0;
    await this.#target.write(name, options, async (handle) => {
      sizeBytes = await readContent(this.#store, object, this.#keys, this.#signal, (chunk) => handle.writeFile(chunk));
    });
    return {...base, ...note, sizeBytes, action: 'restored'};
  }

  async #isSame(object: FileObject, place: string, existing: Stats): Promise<boolean> {
    const {facts, keys} = object;
    if (!existing.isFile() || (facts && facts.sizeBytes !== existing.size)) return false;
    const local = LocalFile.open(place);
    try {
      if (facts && keys) return (await local.digest(keys.digests)) === facts.digest;
      return await holdsSame(this.#store, object, local, this.#keys, this.#signal);
    } finally {
      local.close();
    }
  }
}

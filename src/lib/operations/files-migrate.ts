import {stat} from 'node:fs/promises';
import path from 'node:path';
import pMap from 'p-map';
import {staleUploadMs} from '../catalog/health.ts';
import {keyring} from '../encrypt/keys.ts';
import {asBackupError, BackupError, type ErrorCode, interruption, messageOf} from '../errors.ts';
import {
  filesPrefix,
  hiddenKeyOf,
  mayBeHidden,
  mostKeyBytes,
  nameOf,
  objectKeyOf,
  reasonToRefuse,
} from '../files/file-names.ts';
import {LocalFile} from '../files/local-file.ts';
import type {FileFacts} from '../files/metadata.ts';
import {type FoundFile, type FoundOther, walk} from '../files/walk.ts';
import {asStep, type Step} from '../observer.ts';
import {openStores} from '../upload/open-store.ts';
import type {ObjectStore} from '../upload/store.ts';
import type {FilesSettings} from './files-each.ts';
import {keepDamagedIndex, otherKeyOfNames, readIndexToReplace, writeIndex} from './files-index.ts';
import {describeFile, type FileObject, type FilesKeyring, filesKeyring, holdsSame} from './files-objects.ts';
import {requireStored, smallBytes, uploadFile} from './files-upload.ts';
import type {Runtime} from './runtime.ts';

export interface MigrateSettings extends FilesSettings {
  directory: string;
  /** Say what would be done, and do nothing. */
  dryRun: boolean;
  /** Delete a local file when its object was proved to hold it. */
  deleteLocal: boolean;
  /** Store another content in place of the one that is there. */
  overwrite: boolean;
  /** Keys say nothing of the path. */
  hideNames: boolean;
  include: readonly string[];
  exclude: readonly string[];
}

/** What became of a file, or would become of it. */
export interface MigratedFile {
  /** From the directory. */
  path: string;
  /** `conflict`: the object that is there holds something else, and was kept. */
  action: 'uploaded' | 'unchanged' | 'conflict' | 'skipped' | 'failed';
  sizeBytes: number;
  /** The local file was deleted, or would be. */
  isDeleted: boolean;
  key?: string;
  code?: ErrorCode;
  reason?: string;
}

export interface MigrateResult {
  directory: string;
  /** Everything lies under it. */
  prefix: string;
  dryRun: boolean;
  durationMs: number;
  uploaded: number;
  uploadedBytes: number;
  unchanged: number;
  deleted: number;
  skipped: number;
  conflicts: number;
  failed: number;
  /** In the order of their names. */
  files: MigratedFile[];
}

export function migrateSteps({dryRun}: Pick<MigrateSettings, 'dryRun'>): readonly Step[] {
  return [
    {id: 'walk', title: 'Look through the directory'},
    {id: 'catalog', title: 'See what is in the bucket'},
    {id: 'files', title: dryRun ? 'Compare with the bucket' : 'Encrypt and upload'},
    {id: 'index', title: 'Write the index of names'},
  ];
}

/** Parts of all files together that are under way at once: 2 to 4 are safe on R2. */
const mostParts = 4;
/** So many failures of the store one after another: it is gone, and the rest is not tried. */
const mostStorageFailures = 10;
/** Where no index says whose the hidden names are, so many are asked. Hidden names are hashes: the first ones are any. */
const sampleOfNames = 100;

/**
 * Moves a directory's files into the files bucket. One file that fails stops no other: see the result.
 * @throws BackupError CONFIGURATION_INVALID, WRONG_KEY of hidden names, of the store, or the interruption
 */
export async function migrateFiles(settings: MigrateSettings, runtime: Runtime): Promise<MigrateResult> {
  const started = performance.now();
  const root = path.resolve(settings.directory);
  await requireDirectory(root);
  using stores = await openStores(settings.store);
  const migration = new Migration(stores.files, root, settings, runtime);
  const files = await migration.run();
  return {
    directory: root,
    prefix: objectPrefix(root),
    dryRun: settings.dryRun,
    durationMs: Math.round(performance.now() - started),
    ...totalsOf(files),
    files,
  };
}

async function requireDirectory(root: string): Promise<void> {
  const make = (reason: string) =>
    new BackupError(`There is no directory ${root}`, {
      code: 'CONFIGURATION_INVALID',
      kind: 'configuration',
      reason,
      hint: 'Name the directory of the uploads: loma-backup files migrate DIR.',
    });
  const facts = await stat(root).catch((error) => {
    throw make(messageOf(error));
  });
  if (!facts.isDirectory()) throw make('it is no directory');
  if (path.basename(root) === '') throw make('its files would have no directory in their names');
}

function objectPrefix(root: string): string {
  return `${filesPrefix}${path.basename(root)}/`;
}

function totalsOf(files: readonly MigratedFile[]) {
  const count = (action: MigratedFile['action']) => files.filter((file) => file.action === action).length;
  return {
    uploaded: count('uploaded'),
    uploadedBytes: files.reduce((sum, {action, sizeBytes}) => sum + (action === 'uploaded' ? sizeBytes : 0), 0),
    unchanged: count('unchanged'),
    deleted: files.filter(({isDeleted}) => isDeleted).length,
    skipped: count('skipped'),
    conflicts: count('conflict'),
    failed: count('failed'),
  };
}

class Migration {
  readonly #store: ObjectStore;
  readonly #root: string;
  readonly #directory: string;
  readonly #settings: MigrateSettings;
  readonly #runtime: Runtime;
  readonly #keys: FilesKeyring;
  /** Keys that were there at the start. */
  readonly #existing = new Set<string>();
  readonly #results = new Map<string, MigratedFile>();
  /** Hidden names that this run has learned. */
  readonly #learned = new Map<string, FileFacts>();
  #partConcurrency = 1;
  #storageFailures = 0;
  #totalBytes = 0;
  #doneBytes = 0;
  #doneFiles = 0;
  #totalFiles = 0;

  constructor(store: ObjectStore, root: string, settings: MigrateSettings, runtime: Runtime) {
    this.#store = store;
    this.#root = root;
    this.#directory = path.basename(root);
    this.#settings = settings;
    this.#runtime = runtime;
    this.#keys = filesKeyring(keyring(settings.keys.current, settings.keys.previous));
  }

  async run(): Promise<MigratedFile[]> {
    const {observer} = this.#runtime;
    const {files, others} = await asStep(
      observer,
      'walk',
      () => this.#walk(),
      ({files, others}) => `${files.length} files, ${others.length} other entries`,
    );
    await asStep(
      observer,
      'catalog',
      () => this.#readBucket(files),
      () => `${this.#existing.size} objects`,
    );
    await asStep(
      observer,
      'files',
      () => this.#migrateAll(files),
      () => this.#filesNote(),
    );
    if (this.#settings.hideNames && !this.#settings.dryRun) await asStep(observer, 'index', () => this.#writeIndex());
    const all = [...others.map(otherResult), ...this.#results.values()];
    return all.sort((a, b) => Buffer.compare(Buffer.from(a.path), Buffer.from(b.path)));
  }

  #filesNote(): string {
    if (!this.#settings.dryRun) return `${this.#doneFiles} files`;
    const {uploaded, unchanged} = totalsOf([...this.#results.values()]);
    return `${uploaded} files would be uploaded, ${unchanged} are there already`;
  }

  async #walk(): Promise<{files: FoundFile[]; others: FoundOther[]}> {
    const files: FoundFile[] = [];
    const others: FoundOther[] = [];
    for await (const found of walk(this.#root, this.#settings)) {
      this.#throwIfInterrupted();
      if (found.is === 'file') files.push(found);
      else others.push(found);
    }
    const large = files.filter(({sizeBytes}) => sizeBytes > smallBytes).length;
    this.#partConcurrency = Math.max(
      1,
      Math.floor(mostParts / Math.max(1, Math.min(this.#settings.concurrency, large))),
    );
    this.#totalFiles = files.length;
    return {files, others};
  }

  /** One listing instead of a question for each file; and what an earlier run could not take away is taken away. */
  async #readBucket(files: readonly FoundFile[]): Promise<void> {
    const prefix = objectPrefix(this.#root);
    for await (const {key} of this.#store.list(prefix)) {
      this.#throwIfInterrupted();
      this.#existing.add(key);
    }
    if (this.#settings.hideNames) await this.#requireKeyOfNames(files);
    if (this.#settings.dryRun) return;
    const now = this.#runtime.now().getTime();
    for await (const upload of this.#store.unfinishedUploads(prefix)) {
      if (now - upload.startedAt.getTime() > staleUploadMs) await this.#store.abortUpload(upload);
    }
  }

  /**
   * With another key every file would get another hidden name, and be stored once more. Whose the names are, the index says
   * or, when there is none, the objects.
   * @throws BackupError WRONG_KEY
   */
  async #requireKeyOfNames(files: readonly FoundFile[]): Promise<void> {
    const index = await readIndexToReplace(this.#store, this.#directory, this.#keys, this.#runtime.signal);
    if (index?.size || files.some((file) => this.#existing.has(this.#keyOf(file)))) return;
    let missingKey: string | undefined;
    for (const key of [...this.#existing].filter(mayBeHidden).slice(0, sampleOfNames)) {
      this.#throwIfInterrupted();
      const object = await describeFile(this.#store, key, this.#keys.all);
      if (object?.facts?.isHidden) return;
      missingKey ??= object?.missingKey;
    }
    if (missingKey === undefined) return;
    const held = this.#keys.all.map(({fingerprint}) => fingerprint).join(', ');
    throw otherKeyOfNames(
      this.#directory,
      `${objectPrefix(this.#root)} holds hidden names of key ${missingKey}, you have ${held}`,
    );
  }

  async #migrateAll(files: readonly FoundFile[]): Promise<void> {
    this.#totalBytes = files.reduce((sum, file) => sum + this.#bytesToRead(file), 0);
    await pMap(files, (file) => this.#migrateOne(file), {concurrency: this.#settings.concurrency});
    const interrupted = interruption(this.#runtime.signal);
    if (interrupted) throw this.#interruptedAfter(interrupted);
  }

  #interruptedAfter({message, kind}: BackupError): BackupError {
    const {uploaded, deleted} = totalsOf([...this.#results.values()]);
    return new BackupError(message, {
      code: 'INTERRUPTED',
      kind,
      reason: `${uploaded} files were uploaded and ${deleted} local ones deleted before; nothing half-done was left`,
      hint: 'Run it again: what is there is skipped.',
    });
  }

  /** Never fails: what happened is in the results. */
  async #migrateOne(file: FoundFile): Promise<void> {
    if (this.#runtime.signal?.aborted) return;
    let counted = 0;
    const onBytes = (total: number) => {
      this.#doneBytes += total - counted;
      counted = total;
      this.#showProgress();
    };
    try {
      if (this.#storageFailures >= mostStorageFailures) {
        throw new BackupError('Not tried', {
          code: 'STORAGE_FAILED',
          kind: 'storage',
          reason: `not tried: the store failed ${mostStorageFailures} times one after another`,
        });
      }
      this.#results.set(file.path, await this.#migrate(file, onBytes));
      this.#storageFailures = 0;
    } catch (error) {
      if (this.#runtime.signal?.aborted) return;
      const {code, kind, reason, message} = asBackupError(error);
      if (kind === 'storage' && code !== 'OBJECT_EXISTS') this.#storageFailures += 1;
      const key = this.#keyOf(file);
      this.#results.set(file.path, {...resultOf(file, 'failed'), key, code, reason: reason ?? message});
    }
    this.#doneFiles += 1;
    onBytes(this.#bytesToRead(file));
  }

  /** A dry run reads only what it compares with an object. */
  #bytesToRead(file: FoundFile): number {
    return this.#settings.dryRun && !this.#existing.has(this.#keyOf(file)) ? 0 : file.sizeBytes;
  }

  #showProgress(): void {
    this.#runtime.observer({
      type: 'progress',
      step: 'files',
      bytes: this.#doneBytes,
      totalBytes: this.#totalBytes,
      items: this.#doneFiles,
      totalItems: this.#totalFiles,
    });
  }

  async #migrate(file: FoundFile, onBytes: (total: number) => void): Promise<MigratedFile> {
    const key = this.#keyOf(file);
    requireUsable(this.#nameOf(file), key);
    const local = LocalFile.open(path.join(this.#root, file.path));
    try {
      return await this.#migrateOpened(file, key, local, onBytes).catch((error) => {
        if (!isObjectExists(error)) throw error;
        // Another run has stored it meanwhile: it is compared as one that was there before.
        this.#existing.add(key);
        return this.#migrateOpened(file, key, local, onBytes);
      });
    } finally {
      local.close();
    }
  }

  async #migrateOpened(
    file: FoundFile,
    key: string,
    local: LocalFile,
    onBytes: (total: number) => void,
  ): Promise<MigratedFile> {
    const result = {...resultOf({...file, sizeBytes: local.sizeBytes}, 'uploaded'), key};
    const object = this.#existing.has(key) ? await describeFile(this.#store, key, this.#keys.all) : undefined;
    if (object) {
      const same = await this.#isSame(object, local);
      if (same === 'same') {
        const isDeleted = await this.#deleteIfStored(key, object.facts, local);
        return {...result, action: 'unchanged', isDeleted};
      }
      if (!this.#settings.overwrite) {
        return {...result, action: 'conflict', code: 'FILE_DIFFERS', reason: same};
      }
    }
    if (this.#settings.dryRun) {
      // What cannot be read is found out.
      await local.requireReadable();
      return {...result, isDeleted: this.#settings.deleteLocal};
    }
    const facts = await uploadFile(local, {
      store: this.#store,
      keys: this.#keys,
      key,
      name: this.#nameOf(file),
      isHidden: this.#settings.hideNames,
      replaces: object !== undefined,
      partConcurrency: this.#partConcurrency,
      signal: this.#runtime.signal,
      onBytes,
    });
    this.#learned.set(key, facts);
    return {...result, isDeleted: await this.#deleteIfStored(key, facts, local)};
  }

  /** Whether an object holds a local file, by its digest where it has one; else why it does not. */
  async #isSame(object: FileObject, local: LocalFile): Promise<string> {
    const {facts, keys, problem} = object;
    if (facts && keys) {
      if (object.facts?.isHidden) this.#learned.set(object.key, facts);
      if (facts.sizeBytes !== local.sizeBytes) {
        return `the object that is there holds ${facts.sizeBytes} bytes, the local file ${local.sizeBytes}`;
      }
      const isEqual = (await local.digest(keys.digests)) === facts.digest;
      return isEqual ? 'same' : 'the object that is there holds other content of the same size';
    }
    if (problem === undefined) {
      const isEqual = await holdsSame(this.#store, object, local, this.#keys, this.#runtime.signal);
      return isEqual ? 'same' : 'the object that is there holds other content';
    }
    return `the object that is there cannot be compared: ${problem}`;
  }

  /** @returns whether it was deleted, or would be */
  async #deleteIfStored(key: string, facts: FileFacts | undefined, local: LocalFile): Promise<boolean> {
    const {deleteLocal, dryRun} = this.#settings;
    if (!deleteLocal || dryRun) return deleteLocal;
    const {signal} = this.#runtime;
    // Without facts it was compared byte by byte just now.
    if (facts)
      await requireStored({key, digest: facts.digest, name: facts.name}, local, this.#store, this.#keys, signal);
    this.#throwIfInterrupted();
    await local.remove();
    return true;
  }

  #nameOf(file: FoundFile): string {
    return `${this.#directory}/${file.path}`;
  }

  /** A hidden key that was made with an earlier encryption key is used on. */
  #keyOf(file: FoundFile): string {
    const name = this.#nameOf(file);
    if (!this.#settings.hideNames) return objectKeyOf(name);
    const candidates = this.#keys.all.map(({names}) => hiddenKeyOf(name, names));
    return candidates.find((key) => this.#existing.has(key)) ?? candidates[0] ?? '';
  }

  async #writeIndex(): Promise<void> {
    const {signal, observer} = this.#runtime;
    const before = await readIndexToReplace(this.#store, this.#directory, this.#keys, signal);
    if (!before) {
      const kept = await keepDamagedIndex(this.#store, this.#directory, this.#runtime.now(), signal);
      observer({
        type: 'warning',
        message: `the index of names of ${this.#directory} is damaged: it is made anew from the objects, and the damaged one is kept as ${kept}`,
      });
    }
    const entries = new Map([...(before ?? []), ...this.#learned]);
    const unknown = [...this.#existing].filter((key) => mayBeHidden(key) && !entries.has(key));
    await pMap(
      unknown,
      async (key) => {
        const facts = (await describeFile(this.#store, key, this.#keys.all))?.facts;
        if (facts?.isHidden) entries.set(key, facts);
      },
      {concurrency: this.#settings.concurrency},
    );
    await writeIndex(this.#store, this.#directory, entries, this.#keys);
  }

  #throwIfInterrupted(): void {
    const interrupted = interruption(this.#runtime.signal);
    if (interrupted) throw interrupted;
  }
}

function isObjectExists(error: unknown): boolean {
  return error instanceof BackupError && error.code === 'OBJECT_EXISTS';
}

function requireUsable(name: string, key: string): void {
  const bytes = Buffer.byteLength(key);
  const reason =
    bytes > mostKeyBytes
      ? `its key would have ${bytes} bytes, and ${mostKeyBytes} is the most that S3 and R2 take`
      : (reasonToRefuse(name) ?? (nameOf(key) === undefined ? 'its key names no file' : undefined));
  if (reason === undefined) return;
  throw new BackupError('The file is refused', {
    code: 'FILE_REFUSED',
    kind: 'unexpected',
    reason,
    hint: 'Give it a shorter name, or hide the names (--hash-names).',
  });
}

function resultOf({path: found, sizeBytes}: FoundFile, action: MigratedFile['action']): MigratedFile {
  return {path: found, action, sizeBytes, isDeleted: false};
}

function otherResult({is, path: found, reason}: FoundOther): MigratedFile {
  const code = is === 'failed' ? {code: 'FILE_UNREADABLE' as const} : {};
  return {path: found, action: is, sizeBytes: 0, isDeleted: false, reason, ...code};
}

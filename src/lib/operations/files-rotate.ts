/**
 * Sealing files anew with the current key, so that previous keys can be destroyed. A file's wrapped data key stands in its
 * object, and its digest, its metadata and a hidden name hang on the key, too: so each object is downloaded, opened, sealed
 * and uploaded in its own place, one write an object. It can be ended at any moment and run again.
 */
import {createHmac} from 'node:crypto';
import type {Readable} from 'node:stream';
import {pipeline} from 'node:stream/promises';
import {fittingKeys, integrityError} from '../encrypt/frame-check.ts';
import {seal} from '../encrypt/seal.ts';
import {sealWhole} from '../encrypt/seal-whole.ts';
import {BackupError, interruption, messageAndReason} from '../errors.ts';
import {hiddenKeyOf} from '../files/file-names.ts';
import {encodeMetadata, type FileFacts} from '../files/metadata.ts';
import {filePartSize} from '../upload/part-size.ts';
import type {ObjectStore} from '../upload/store.ts';
import {readObjectHeader} from './catalog.ts';
import {eachFile} from './files-each.ts';
import {indexPrefix, readIndex, writeIndex} from './files-index.ts';
import {type ListedFile, readFiles} from './files-list.ts';
import {describeFile, type FileObject, type FilesKeyring, fileContext, openFile, readContent} from './files-objects.ts';
import {smallBytes} from './files-upload.ts';
import type {Runtime} from './runtime.ts';

/** What became of a file, or would become. */
export interface FileRotation {
  key: string;
  /**
   * `unchanged`: the current key alone opens it, and did before. `needed`: it hangs on a previous key, and nobody asked for
   * it to be sealed anew.
   */
  outcome: 'unchanged' | 'needed' | 'rotated' | 'failed';
  note?: string | undefined;
}

export interface FilesRotation {
  files: FileRotation[];
  /** Indexes of hidden names that only a previous key opens. */
  outdatedIndexes: number;
}

/** `look` counts what hangs on previous keys; `plan` says what `reseal` would do. */
export type RotationMode = 'look' | 'plan' | 'reseal';

/** Files sealed at the same time, and files looked at. */
const concurrency = 4;
const lookConcurrency = 16;
const step = 'files';
const suffix = '.encrypted';

/** @throws BackupError of the store when it cannot be listed, or the interruption */
export async function rotateFiles(
  store: ObjectStore,
  keys: FilesKeyring,
  mode: RotationMode,
  runtime: Runtime,
): Promise<FilesRotation> {
  const found = await readFiles(store, undefined, keys, runtime);
  const rotation = new Rotation(store, keys, mode, runtime.signal);
  const files = await eachFile<FileRotation>(
    {store, keys, ...found, concurrency: mode === 'reseal' ? concurrency : lookConcurrency, step},
    runtime,
    (object, listed) => rotation.rotate(object, listed),
    ({key}, error) => ({key, outcome: 'failed', note: messageAndReason(error)}),
  );
  const interrupted = interruption(runtime.signal);
  if (interrupted) throw interrupted;
  return {files, outdatedIndexes: await rotation.rotateIndexes()};
}

class Rotation {
  readonly #store: ObjectStore;
  readonly #keys: FilesKeyring;
  /** The current key and nothing else: what has to be enough in the end. */
  readonly #alone: FilesKeyring;
  readonly #mode: RotationMode;
  readonly #signal: AbortSignal | undefined;

  constructor(store: ObjectStore, keys: FilesKeyring, mode: RotationMode, signal: AbortSignal | undefined) {
    this.#store = store;
    this.#keys = keys;
    this.#alone = {
      encryption: {current: keys.encryption.current, previous: []},
      current: keys.current,
      all: [keys.current],
    };
    this.#mode = mode;
    this.#signal = signal;
  }

  async rotate(object: FileObject, {storedBytes}: ListedFile): Promise<FileRotation> {
    const {key, facts, problem} = object;
    if (await this.#isCurrent(object)) return {key, outcome: 'unchanged'};
    if (this.#mode === 'look') return {key, outcome: 'needed'};
    if (problem !== undefined) throw integrityError(key, problem);
    if (this.#mode === 'plan') return {key, outcome: 'rotated'};
    const moved = facts?.isHidden ? hiddenKeyOf(facts.name, this.#keys.current.names) : key;
    await this.#sealAnew(object, moved, storedBytes);
    if (moved !== key) await this.#store.delete(key);
    return {key, outcome: 'rotated'};
  }

  /** By its header and its metadata: the content is not read. */
  async #isCurrent({key, facts, problem}: FileObject): Promise<boolean> {
    if (problem !== undefined || (facts && facts.keyFingerprint !== this.#keys.current.fingerprint)) return false;
    if (facts?.isHidden && hiddenKeyOf(facts.name, this.#keys.current.names) !== key) return false;
    return this.#isSealedAnew(key);
  }

  async #isSealedAnew(key: string): Promise<boolean> {
    const header = await readObjectHeader(this.#store, key);
    return header !== undefined && fittingKeys([this.#keys.encryption.current], header.wrappedKeys).length > 0;
  }

  /** One without metadata stays without: nothing is vouched for that was not known before. */
  async #sealAnew(object: FileObject, moved: string, storedBytes: number): Promise<void> {
    const hash = createHmac('sha256', this.#keys.current.digests);
    const kept: Buffer[] | undefined = storedBytes <= smallBytes ? [] : undefined;
    const sizeBytes = await readContent(this.#store, object, this.#keys, this.#signal, (chunk) => {
      hash.update(chunk);
      kept?.push(chunk);
    });
    const digest = hash.digest('hex');
    const facts = object.facts && {...object.facts, digest, keyFingerprint: this.#keys.current.fingerprint};
    if (moved === object.key || !(await this.#isThere(moved, digest))) {
      const metadata = facts && encodeMetadata(moved, facts, this.#keys.current);
      const options = {contentType: 'application/octet-stream', ...(metadata ? {metadata} : {})};
      const interrupted = interruption(this.#signal);
      if (interrupted) throw interrupted;
      const {current} = this.#keys.encryption;
      if (kept) await this.#store.replace(moved, sealWhole(Buffer.concat(kept), current, fileContext(moved)), options);
      else await this.#upload(object, moved, {sizeBytes, digest}, options);
    }
    await this.#prove(moved, digest);
  }

  /** A run that was ended has stored it under its new key already. */
  async #isThere(moved: string, digest: string): Promise<boolean> {
    const there = await describeFile(this.#store, moved, this.#keys.all);
    if (!there) return false;
    if (there.facts?.digest === digest) return true;
    throw new BackupError('Two objects have the same name', {
      code: 'FILE_DIFFERS',
      kind: 'integrity',
      reason: `${moved} holds other content, and was stored with the current key: both were kept`,
      hint: 'Restore both, and delete the one that is not wanted.',
    });
  }

  /** Downloaded a second time: its digest stands at the head of the upload. */
  async #upload(
    object: FileObject,
    moved: string,
    {sizeBytes, digest}: {sizeBytes: number; digest: string},
    options: {metadata?: Record<string, string>},
  ): Promise<void> {
    const {stages} = await openFile(this.#store, object, this.#keys, this.#signal);
    const {digests} = this.#keys.current;
    try {
      await pipeline(
        ...stages,
        async function* same(content: AsyncIterable<Buffer>) {
          const hash = createHmac('sha256', digests);
          let held: Buffer | undefined;
          for await (const chunk of content) {
            if (held) yield held;
            hash.update(chunk);
            held = chunk;
          }
          if (hash.digest('hex') !== digest) throw integrityError(object.key, 'it was replaced while it was read');
          if (held) yield held;
        },
        seal(this.#keys.encryption.current, fileContext(moved)),
        (body: unknown) =>
          this.#store.put(moved, body as Readable, {
            partSizeBytes: filePartSize(sizeBytes),
            concurrency: 1,
            key: 'replacing',
            signal: this.#signal,
            ...options,
          }),
        this.#signal ? {signal: this.#signal} : {},
      );
    } catch (error) {
      throw interruption(this.#signal) ?? error;
    }
  }

  /** Read back with the current key alone. */
  async #prove(key: string, digest: string): Promise<void> {
    const stored = await describeFile(this.#store, key, this.#alone.all);
    const hash = createHmac('sha256', this.#keys.current.digests);
    if (stored) {
      await readContent(this.#store, stored, this.#alone, this.#signal, (chunk) => {
        hash.update(chunk);
      });
    }
    if (!stored || stored.problem !== undefined || hash.digest('hex') !== digest) {
      throw integrityError(key, 'what was stored does not read back');
    }
  }

  /** @returns how many indexes still hang on a previous key */
  async rotateIndexes(): Promise<number> {
    let outdated = 0;
    for await (const {key} of this.#store.list(indexPrefix)) {
      if (this.#mode === 'reseal' && (await this.#rotateIndex(key.slice(indexPrefix.length, -suffix.length)))) continue;
      if (!(await this.#isSealedAnew(key))) outdated += 1;
    }
    return outdated;
  }

  /** @returns false for one that does not open: it is no truth of its own, and stays as it is */
  async #rotateIndex(directory: string): Promise<boolean> {
    let entries: Map<string, FileFacts>;
    try {
      entries = await readIndex(this.#store, directory, this.#keys, this.#signal);
    } catch {
      const interrupted = interruption(this.#signal);
      if (interrupted) throw interrupted;
      return false;
    }
    const outdated = [...entries].filter(([, {keyFingerprint}]) => keyFingerprint !== this.#keys.current.fingerprint);
    for (const [old, {name}] of outdated) {
      const key = hiddenKeyOf(name, this.#keys.current.names);
      const facts = (await describeFile(this.#store, key, this.#alone.all))?.facts;
      // What could not be sealed anew, or is gone, stays in the index as it is: a verification names it.
      if (!facts) continue;
      entries.delete(old);
      entries.set(key, facts);
    }
    await writeIndex(this.#store, directory, entries, this.#keys);
    return true;
  }
}

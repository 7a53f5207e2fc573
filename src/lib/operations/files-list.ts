import pMap from 'p-map';
import type {KeySettings, StoreSettings} from '../config.ts';
import {keyring} from '../encrypt/keys.ts';
import {asBackupError, BackupError, type ErrorKind, interruption} from '../errors.ts';
import {filesPrefix, keyPrefixOf, mayBeHidden, nameOf, namePrefixOf} from '../files/file-names.ts';
import type {FileFacts} from '../files/metadata.ts';
import {openStores} from '../upload/open-store.ts';
import type {ObjectInfo, ObjectStore} from '../upload/store.ts';
import {indexedDirectories, readIndex} from './files-index.ts';
import {describeFile, type FilesKeyring, filesKeyring} from './files-objects.ts';
import type {Runtime} from './runtime.ts';

/** Objects asked for their metadata at the same time. */
const concurrency = 16;
/** Files that an error counts at most: ten requests of a listing. */
const mostCounted = 10_000;

export interface FilesListSettings {
  store: StoreSettings;
  /** Without keys, hidden names stay hidden. */
  optionalKeys: KeySettings | undefined;
  /** Of names: `uploads/2024/`. */
  prefix?: string | undefined;
  /** Ask every object for its metadata. */
  long: boolean;
}

/** A file in the bucket, as far as a listing tells. */
export interface ListedFile {
  key: string;
  /** `<dir>/<path>`; what the key says where the name is hidden and cannot be read. */
  name: string;
  /** Of the stored object. */
  storedBytes: number;
  storedAt: Date;
  /** Of an object with a hidden name, or when every object was asked; authenticated. */
  facts?: FileFacts | undefined;
  /** Why the object's metadata are not believed. */
  problem?: string | undefined;
}

/** Every file whose name begins with the prefix, in the order of the keys. */
export async function listFiles(
  settings: FilesListSettings,
  runtime: Pick<Runtime, 'signal' | 'observer'>,
): Promise<ListedFile[]> {
  const {optionalKeys} = settings;
  const keys = optionalKeys && filesKeyring(keyring(optionalKeys.current, optionalKeys.previous));
  using stores = await openStores(settings.store);
  const {files} = await readFiles(stores.files, settings.prefix, keys, runtime);
  if (!settings.long) return files;
  return await pMap(files, (file) => withMetadata(stores.files, file, keys), {concurrency});
}

async function withMetadata(store: ObjectStore, file: ListedFile, keys: FilesKeyring | undefined): Promise<ListedFile> {
  const described = await describeFile(store, file.key, keys?.all ?? []);
  return {...file, facts: described?.facts ?? file.facts, problem: described?.problem};
}

export interface FoundFiles {
  files: ListedFile[];
  /** Entries of indexes, by key: what an object is whose metadata were lost. */
  index: ReadonlyMap<string, FileFacts>;
  /** Files that an index names, and whose objects are gone. */
  missing: MissingFile[];
  /** How many names stay hidden: what hid them is not at hand, or altered. */
  unreadNames: number;
}

export interface MissingFile {
  /** Of the object that is gone. */
  key: string;
  name: string;
}

/** What is said of them. */
export const missingReason = 'the index names it; it is gone';

/**
 * The same for who wants to do something with files: none at all is a mistyped prefix, or a wrong or emptied bucket.
 * @param kind of the error when there is none
 * @throws BackupError FILES_NOT_FOUND
 */
export async function findFiles(
  store: ObjectStore,
  prefix: string | undefined,
  keys: FilesKeyring,
  kind: ErrorKind,
  runtime: Pick<Runtime, 'signal' | 'observer'>,
): Promise<FoundFiles> {
  const found = await readFiles(store, prefix, keys, runtime);
  if (found.files.length + found.missing.length > 0) return found;
  const namePrefix = namePrefixOf(prefix);
  const wanted = namePrefix === '' ? '' : ` whose name begins with ${JSON.stringify(namePrefix)}`;
  const count = await countFiles(store, runtime.signal);
  const all = `${count === 0 ? 'none' : count}${count === mostCounted ? ' or more' : ''} in all`;
  const unread = found.unreadNames > 0 ? `; hidden names that could not be read: ${found.unreadNames}` : '';
  throw new BackupError('There are no such files', {
    code: 'FILES_NOT_FOUND',
    kind,
    reason: `${store.description} holds no file${wanted}; files there: ${all}${unread}`,
    hint: 'See what there is: loma-backup files list. Is it the right bucket (CLOUDFLARE_R2_BUCKET_FILES)?',
  });
}

/** Not further than `mostCounted`. */
async function countFiles(store: ObjectStore, signal: AbortSignal | undefined): Promise<number> {
  let count = 0;
  for await (const {key} of store.list(filesPrefix)) {
    const interrupted = interruption(signal);
    if (interrupted) throw interrupted;
    if (nameOf(key) !== undefined) count += 1;
    if (count >= mostCounted) break;
  }
  return count;
}

/** Lists the files of a prefix of names; hidden names come from the index, or from the objects that it lacks. */
export async function readFiles(
  store: ObjectStore,
  prefix: string | undefined,
  keys: FilesKeyring | undefined,
  {signal, observer}: Pick<Runtime, 'signal' | 'observer'>,
): Promise<FoundFiles> {
  const namePrefix = namePrefixOf(prefix);
  const objects: ObjectInfo[] = [];
  for await (const object of store.list(keyPrefixOf(namePrefix))) {
    const interrupted = interruption(signal);
    if (interrupted) throw interrupted;
    const name = nameOf(object.key);
    if (name !== undefined && (name.startsWith(namePrefix) || mayBeHidden(object.key))) objects.push(object);
  }
  const index = new Map<string, FileFacts>();
  if (keys) {
    for await (const directory of indexedDirectories(store, namePrefix)) {
      const entries = await readIndex(store, directory, keys, signal).catch((error) => {
        const {code, kind, message, reason = message} = asBackupError(error);
        // A store that fails is no index without entries: files that are gone would not be noticed.
        const isOfIndex = kind === 'integrity' || kind === 'unexpected' || code === 'OBJECT_CHANGED';
        if (!isOfIndex) throw error;
        observer({type: 'warning', message: `the index of names of ${directory} is not used: ${reason}`});
        return new Map<string, FileFacts>();
      });
      for (const [key, facts] of entries) index.set(key, facts);
    }
  }
  const listed = await pMap(objects, (object) => listedOf(store, object, keys, index), {concurrency});
  const present = new Set(objects.map(({key}) => key));
  // A rotation that was ended has moved files to other keys, and has not yet written the index.
  const hiddenNames = new Set(listed.flatMap(({facts}) => (facts?.isHidden ? [facts.name] : [])));
  return {
    files: listed.filter(({name}) => name.startsWith(namePrefix)),
    index,
    unreadNames: listed.filter(({key, facts}) => mayBeHidden(key) && !facts).length,
    missing: [...index].flatMap(([key, {name}]) =>
      name.startsWith(namePrefix) && !present.has(key) && !hiddenNames.has(name) ? [{key, name}] : [],
    ),
  };
}

async function listedOf(
  store: ObjectStore,
  {key, sizeBytes, modifiedAt}: ObjectInfo,
  keys: FilesKeyring | undefined,
  index: ReadonlyMap<string, FileFacts>,
): Promise<ListedFile> {
  const listed = {key, name: nameOf(key) ?? key, storedBytes: sizeBytes, storedAt: modifiedAt};
  if (!keys || !mayBeHidden(key)) return listed;
  const facts = index.get(key) ?? (await describeFile(store, key, keys.all))?.facts;
  return facts ? {...listed, name: facts.name, facts} : listed;
}

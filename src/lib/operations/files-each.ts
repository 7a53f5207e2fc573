/** One pass over files of the bucket, for whatever is done with each: one that fails stops no other, and progress is told. */
import pMap, {pMapSkip} from 'p-map';
import type {KeySettings, StoreSettings} from '../config.ts';
import {asBackupError, type BackupError} from '../errors.ts';
import type {FileFacts} from '../files/metadata.ts';
import type {ObjectStore} from '../upload/store.ts';
import type {ListedFile} from './files-list.ts';
import {describeFile, type FileObject, type FilesKeyring} from './files-objects.ts';
import type {Runtime} from './runtime.ts';

/** What every operation that opens or seals files is told. */
export interface FilesSettings {
  store: StoreSettings;
  keys: KeySettings;
  /** Files under way at once. */
  concurrency: number;
}

/** And which of the files in the bucket. */
export interface PrefixSettings extends FilesSettings {
  /** Of names: `uploads/2024/`. */
  prefix?: string | undefined;
}

export interface FilesPass {
  store: ObjectStore;
  keys: FilesKeyring;
  files: readonly ListedFile[];
  /** Names of hidden objects whose metadata were lost. */
  index?: ReadonlyMap<string, FileFacts>;
  concurrency: number;
  /** Whose progress it is. */
  step: string;
}

/**
 * Describes each object and does something with it. After an interruption the rest is left out: the caller looks at the
 * signal.
 * @param failed what the result is of a file whose object is gone, or whose work threw
 */
export async function eachFile<T>(
  {store, keys, files, index, concurrency, step}: FilesPass,
  {observer, signal}: Pick<Runtime, 'observer' | 'signal'>,
  work: (object: FileObject, listed: ListedFile) => Promise<T>,
  failed: (listed: ListedFile, error: BackupError) => T,
): Promise<T[]> {
  const totalBytes = files.reduce((sum, {storedBytes}) => sum + storedBytes, 0);
  let bytes = 0;
  let items = 0;
  const one = async (listed: ListedFile): Promise<T | typeof pMapSkip> => {
    if (signal?.aborted) return pMapSkip;
    let result: T;
    try {
      const object = await describeFile(store, listed.key, keys.all, index);
      if (!object) throw new Error('the object is gone');
      result = await work(object, listed);
    } catch (error) {
      if (signal?.aborted) return pMapSkip;
      result = failed(listed, asBackupError(error));
    }
    bytes += listed.storedBytes;
    items += 1;
    observer({type: 'progress', step, bytes, totalBytes, items, totalItems: files.length});
    return result;
  };
  return pMap(files, one, {concurrency});
}

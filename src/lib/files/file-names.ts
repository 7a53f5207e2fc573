/**
 * The names of objects in the files bucket, and of the files that they were. A file's name is `<dir>/<path>`, always with
 * `/`; its object is `migrated/<dir>/<path>.encrypted`. Existing deployments have them under these keys.
 */
import {createHmac, type KeyObject} from 'node:crypto';

export const filesPrefix = 'migrated/';
const suffix = '.encrypted';

/** S3's and R2's limit, in bytes of UTF-8. */
export const mostKeyBytes = 1024;

export function objectKeyOf(name: string): string {
  return `${filesPrefix}${name}${suffix}`;
}

/** The key with the file's path hidden in it: only the directory that was migrated is readable. */
export function hiddenKeyOf(name: string, namesKey: KeyObject): string {
  const directory = name.slice(0, name.indexOf('/'));
  return objectKeyOf(`${directory}/${createHmac('sha256', namesKey).update(name).digest('hex')}`);
}

/** The name that a key says; undefined for the key of something else. */
export function nameOf(key: string): string | undefined {
  if (!key.startsWith(filesPrefix) || !key.endsWith(suffix)) return undefined;
  return key.slice(filesPrefix.length, -suffix.length) || undefined;
}

/** Whether a key looks as `hiddenKeyOf` makes them; its metadata say whether it is one. */
export function mayBeHidden(key: string): boolean {
  return /^[^/]+\/[0-9a-f]{64}$/.test(nameOf(key) ?? '');
}

/**
 * A prefix of names as a person types it: `/` or `./` may stand before it, as in a path, and `migrated/`, as in a key. No
 * name that can be restored begins so.
 */
export function namePrefixOf(text = ''): string {
  const relative = text.replace(/^(?:\.?\/)+/, '');
  return relative.startsWith(filesPrefix) ? relative.slice(filesPrefix.length) : relative;
}

/** The keys to list for a prefix of names. Hidden ones lie beside the others, so a whole directory is looked through. */
export function keyPrefixOf(namePrefix: string): string {
  const slash = namePrefix.indexOf('/');
  return filesPrefix + (slash < 0 ? namePrefix : namePrefix.slice(0, slash + 1));
}

/**
 * Why a name can't be a path below a directory; undefined when it can. Keys come from a bucket that others may write to.
 */
export function reasonToRefuse(name: string): string | undefined {
  if (name.includes('\0')) return 'its name holds a zero byte';
  if (!name.isWellFormed()) return 'its name is no Unicode text';
  const parts = name.split('/');
  if (parts.some((part) => part === '..' || part === '.')) return 'its name leads out of the directory (.. or .)';
  if (parts.includes('')) return 'its name is no relative path (an empty part)';
  return undefined;
}

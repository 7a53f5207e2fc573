import {BackupError} from '../errors.ts';
import {keyNamespace, type OpeningKey, recoveryNamespace} from './keys.ts';
import {longestHeader, type MessageHeader, parseHeader, type WrappedKey} from './message-header.ts';

/** What every sealed object says about itself, authenticated with it. */
export interface SealContext {
  /** The object's own key: an object renamed or put in place of another is refused. */
  objectKey: string;
  compression: string;
  content: string;
}

/** Version of the whole format: sealed message, key names and manifest (docs/FORMAT.md). */
const format = '2';

export function contextRecord(context: SealContext): Record<string, string> {
  return {format, 'object-key': context.objectKey, compression: context.compression, content: context.content};
}

export function integrityError(what: string, reason: string): BackupError {
  return new BackupError('Decryption failed', {
    code: 'DECRYPTION_FAILED',
    kind: 'integrity',
    reason: `${what}: ${reason}`,
    hint: 'The stored object is not what was written. Restore an earlier backup (loma-backup list), and keep this one for an investigation.',
  });
}

const namespaceOf = (key: OpeningKey) => (key.is === 'recovery' ? recoveryNamespace : keyNamespace);

/** The keys at hand that one of the wrapped keys names. */
export function fittingKeys(keys: readonly OpeningKey[], wrappedKeys: readonly WrappedKey[]): OpeningKey[] {
  return keys.filter((key) =>
    wrappedKeys.some(({namespace, name}) => namespace === namespaceOf(key) && name === key.fingerprint),
  );
}

export function wrongKey(what: string, wanted: string, keys: readonly OpeningKey[]): BackupError {
  const held = keys.map((key) => (key.is === 'recovery' ? `recovery key ${key.fingerprint}` : key.fingerprint));
  return new BackupError('Decryption failed', {
    code: 'WRONG_KEY',
    kind: 'integrity',
    reason: `${what} is encrypted with key ${wanted}, you have ${held.join(', ')}`,
    hint: 'Set PHI_ENCRYPTION_KEY to the key with that fingerprint, or add it to PHI_ENCRYPTION_KEYS_PREVIOUS.',
  });
}

/**
 * Refuses an object that no key of ours opens, or that is another object than its name says.
 * @param more wrapped keys that are kept beside the object
 * @throws BackupError WRONG_KEY or DECRYPTION_FAILED
 */
export function checkHeader(
  header: MessageHeader,
  keys: readonly OpeningKey[],
  expected: SealContext,
  more: readonly WrappedKey[] = [],
): void {
  const wrappedKeys = [...header.wrappedKeys, ...more];
  if (fittingKeys(keys, wrappedKeys).length === 0) {
    const ours = wrappedKeys.filter(({namespace}) => [keyNamespace, recoveryNamespace].includes(namespace));
    const names = ours.map(({namespace, name}) => (namespace === keyNamespace ? name : `recovery key ${name}`));
    throw wrongKey(expected.objectKey, names.join(' or ') || '(none of ours)', keys);
  }
  for (const [name, value] of Object.entries(contextRecord(expected))) {
    const actual = header.context[name];
    if (actual === value) continue;
    const reason =
      name === 'object-key'
        ? `it was written as ${JSON.stringify(actual ?? '')} and has been renamed or put in place of this one`
        : `its ${name} is ${JSON.stringify(actual ?? '')}, not ${JSON.stringify(value)}`;
    throw integrityError(expected.objectKey, reason);
  }
}

/** What follows in the message, and how many bytes of it are still to come. */
type Expecting = 'header' | 'frameHead' | 'finalHead' | 'body' | 'finalBody' | 'nothing';

const sequenceBytes = 4;
const ivBytes = 12;
const tagBytes = 16;
/** Sequence number (again), IV and content length follow the final frame's mark. */
const finalHeadBytes = sequenceBytes + ivBytes + 4;
const finalMark = 0xffffffff;

/**
 * Follows a sealed object's frames without opening them, and says in our words what the library says in none: that the
 * object is cut off, and (what the library does not notice) that something follows its end.
 */
export class FrameCheck {
  readonly #what: string;
  readonly #onHeader: (header: MessageHeader) => void;
  #expecting: Expecting = 'header';
  #head = Buffer.alloc(0);
  #remaining = 0;
  #frameLength = 0;
  #frames = 0;

  /**
   * @param what the object, for messages
   * @param onHeader is called with the header before any frame is looked at, and may throw
   */
  constructor(what: string, onHeader: (header: MessageHeader) => void) {
    this.#what = what;
    this.#onHeader = onHeader;
  }

  /** @throws BackupError DECRYPTION_FAILED for bytes that can't belong to a sealed object */
  write(chunk: Buffer): void {
    let rest = chunk;
    while (rest.length > 0) {
      if (this.#expecting === 'nothing') throw integrityError(this.#what, 'something was appended after its end');
      if (this.#expecting === 'body' || this.#expecting === 'finalBody') {
        const taken = Math.min(rest.length, this.#remaining);
        this.#remaining -= taken;
        rest = rest.subarray(taken);
        if (this.#remaining === 0) this.#endFrame();
      } else {
        rest = this.#takeHead(rest);
      }
    }
  }

  /** @throws BackupError DECRYPTION_FAILED when the object has not come to its end */
  end(): void {
    if (this.#expecting === 'nothing') return;
    const where = this.#expecting === 'header' ? 'in its header' : `after ${this.#frames} whole frames of 1 MiB`;
    throw integrityError(this.#what, `it is cut off ${where}`);
  }

  #endFrame(): void {
    this.#frames += 1;
    this.#expecting = this.#expecting === 'finalBody' ? 'nothing' : 'frameHead';
  }

  /** Gathers one of the small parts that say what follows; gives the bytes that are left over. */
  #takeHead(chunk: Buffer): Buffer {
    const needed =
      this.#expecting === 'header' ? longestHeader : this.#expecting === 'frameHead' ? sequenceBytes : finalHeadBytes;
    const before = this.#head.length;
    this.#head = Buffer.concat([this.#head, chunk.subarray(0, needed - before)]);
    const used = this.#expecting === 'header' ? this.#readHeader() : this.#readFrameHead(needed);
    if (used === undefined) return chunk.subarray(this.#head.length - before);
    this.#head = Buffer.alloc(0);
    return chunk.subarray(used - before);
  }

  #readHeader(): number | undefined {
    const reading = parseHeader(this.#head);
    if (reading.is === 'short') return undefined;
    if (reading.is === 'foreign') throw integrityError(this.#what, reading.reason);
    this.#onHeader(reading.header);
    this.#frameLength = reading.header.frameLength;
    this.#expecting = 'frameHead';
    return reading.header.length;
  }

  #readFrameHead(needed: number): number | undefined {
    if (this.#head.length < needed) return undefined;
    if (this.#expecting === 'finalHead') {
      const length = this.#head.readUInt32BE(sequenceBytes + ivBytes);
      if (length > this.#frameLength) throw integrityError(this.#what, 'its last frame claims to be too long');
      this.#remaining = length + tagBytes;
      this.#expecting = 'finalBody';
    } else if (this.#head.readUInt32BE(0) === finalMark) {
      this.#expecting = 'finalHead';
    } else {
      this.#remaining = ivBytes + this.#frameLength + tagBytes;
      this.#expecting = 'body';
    }
    return needed;
  }
}

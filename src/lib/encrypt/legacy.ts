/**
 * Backups of the procedure before this program, read only: IV (16 bytes), AES-256-GCM ciphertext, tag (16 bytes, at the
 * end); the key is the PHI key itself, and there is no header. The tag covers everything, so nothing is authentic before
 * the end: such an object is read twice, once to authenticate it and once to use it.
 */
import {createDecipheriv, type DecipherGCM} from 'node:crypto';
import {Transform} from 'node:stream';
import {integrityError} from './frame-check.ts';
import type {EncryptionKey} from './keys.ts';

const ivBytes = 16;
const tagBytes = 16;

/** The smallest object that can be one. */
export const legacyOverheadBytes = ivBytes + tagBytes;

/**
 * A fresh stage that decrypts the older form. It releases plaintext before the tag was checked: use it on an object that
 * `authenticateLegacy` found authentic, and let nothing take effect before its end.
 * @throws (the stream) BackupError DECRYPTION_FAILED at its end
 */
export function openLegacy(key: EncryptionKey, what: string): Transform {
  let decipher: DecipherGCM | undefined;
  let held = Buffer.alloc(0);
  return new Transform({
    highWaterMark: 1 << 20,
    transform(chunk: Buffer, _encoding, done) {
      held = Buffer.concat([held, chunk]);
      if (!decipher && held.length >= ivBytes) {
        const iv = held.subarray(0, ivBytes);
        decipher = key.use((bytes) => createDecipheriv('aes-256-gcm', bytes, iv));
        held = held.subarray(ivBytes);
      }
      // The last bytes may be the tag.
      const ready = held.length - tagBytes;
      if (!decipher || ready <= 0) return done();
      const plaintext = decipher.update(held.subarray(0, ready));
      held = Buffer.from(held.subarray(ready));
      done(null, plaintext);
    },
    flush(done) {
      if (!decipher || held.length !== tagBytes) return done(integrityError(what, 'it is too short to be a backup'));
      try {
        decipher.setAuthTag(held);
        done(null, decipher.final());
      } catch {
        done(integrityError(what, `it was altered, cut off, or encrypted with another key than ${key.fingerprint}`));
      }
    },
  });
}

/**
 * Reads an object of the older form to its end with every key at once.
 * @returns the key that it is authentic under
 * @throws BackupError DECRYPTION_FAILED when it is under none
 */
export async function authenticateLegacy(
  source: AsyncIterable<Buffer>,
  keys: readonly EncryptionKey[],
  what: string,
): Promise<EncryptionKey> {
  const attempts = keys.map((key) => {
    const stage = openLegacy(key, what);
    const result = new Promise<EncryptionKey | undefined>((resolve) => {
      stage.on('data', () => undefined);
      stage.on('error', () => resolve(undefined));
      stage.on('end', () => resolve(key));
    });
    return {stage, result};
  });
  for await (const chunk of source) {
    for (const {stage} of attempts)
      if (!stage.write(chunk)) await new Promise((resolve) => stage.once('drain', resolve));
  }
  for (const {stage} of attempts) stage.end();
  const found = (await Promise.all(attempts.map(({result}) => result))).find((key) => key !== undefined);
  if (found) return found;
  throw integrityError(
    what,
    `it was altered, cut off, or encrypted with another key than yours (${keys.map((key) => key.fingerprint).join(', ')})`,
  );
}

/**
 * Sealing and opening a stream: messages of the AWS Encryption SDK, format version 2, algorithm suite 0x0478, 1 MiB
 * frames. The library authenticates a frame before it releases any of its plaintext; `FrameCheck` adds what it leaves out.
 */

import {Duplex, Transform} from 'node:stream';
import {buildDecrypt} from '@aws-crypto/decrypt-node';
import {buildEncrypt} from '@aws-crypto/encrypt-node';
import {CommitmentPolicy} from '@aws-crypto/material-management-node';
import {messageOf} from '../errors.ts';
import {newDataKey, openingKeyring, suiteId, wrappingKeyring} from './data-key.ts';
import {checkHeader, contextRecord, FrameCheck, fittingKeys, integrityError, type SealContext} from './frame-check.ts';
import type {EncryptionKey, OpeningKey, RecoveryPublicKey} from './keys.ts';
import type {WrappedKey} from './message-header.ts';

export {checkHeader, type SealContext} from './frame-check.ts';

/** Plaintext bytes in a frame. At the library's default of 4 KiB it is twelve times slower (docs/PERFORMANCE.md). */
export const frameBytes = 1 << 20;

const {encryptStream} = buildEncrypt(CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT);
const {decryptUnsignedMessageStream} = buildDecrypt({
  commitmentPolicy: CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT,
  maxEncryptedDataKeys: 16,
});

export interface SealOptions {
  /** Wraps the data key a second time. */
  recovery?: RecoveryPublicKey | undefined;
  /** 32 random bytes for this object alone; made here, unless the caller has to know it, too. */
  dataKey?: Buffer | undefined;
}

/** A fresh stage that seals what flows through it. */
export function seal(
  key: EncryptionKey,
  context: SealContext,
  {recovery, dataKey = newDataKey()}: SealOptions = {},
): Duplex {
  return undestroyed(
    encryptStream(wrappingKeyring({key, recovery}, dataKey), {
      suiteId,
      frameLength: frameBytes,
      encryptionContext: contextRecord(context),
    }),
  );
}

/**
 * The same stage, but the library's stream is let go of when this one is destroyed: destroyed half-way, it throws where
 * nobody can catch (encrypt-node 5.0 calls `pipeline` without a callback), and the process would end.
 */
function undestroyed(library: Duplex): Duplex {
  const stage = new Duplex({
    readableHighWaterMark: frameBytes,
    writableHighWaterMark: frameBytes,
    write(chunk: Buffer, _encoding, done) {
      if (library.write(chunk)) done();
      else library.once('drain', () => done());
    },
    final(done) {
      library.end();
      done();
    },
    read() {
      library.resume();
    },
  });
  library.on('data', (sealed: Buffer) => {
    if (!stage.push(sealed)) library.pause();
  });
  library.on('end', () => stage.push(null));
  library.on('error', (error) => stage.destroy(error));
  return stage;
}

/**
 * A fresh stage that opens a sealed object. It releases only what was authenticated; whether the *whole* object was is
 * known at its end, so nothing that was released may take effect before that.
 * @param more wrapped keys that are kept beside the object
 * @throws (the stream) BackupError WRONG_KEY or DECRYPTION_FAILED
 */
export function open(keys: readonly OpeningKey[], expected: SealContext, more: readonly WrappedKey[] = []): Transform {
  let library: Duplex | undefined;
  const check = new FrameCheck(expected.objectKey, (header) => {
    checkHeader(header, keys, expected, more);
    library = startLibrary(fittingKeys(keys, [...header.wrappedKeys, ...more]));
  });
  /** What came before the header was complete. */
  let held: Buffer[] = [];

  function startLibrary(fitting: readonly OpeningKey[]): Duplex {
    const stream: Duplex = decryptUnsignedMessageStream(openingKeyring(fitting, more));
    stream.on('data', (plaintext: Buffer) => stage.push(plaintext));
    stream.on('error', (error) => stage.destroy(integrityError(expected.objectKey, messageOf(error))));
    return stream;
  }

  const stage = new Transform({
    readableHighWaterMark: 2 * frameBytes,
    writableHighWaterMark: frameBytes,
    transform(chunk: Buffer, _encoding, done) {
      try {
        check.write(chunk);
      } catch (error) {
        done(error as Error);
        return;
      }
      held.push(chunk);
      if (!library) {
        done();
        return;
      }
      const ready = held.reduce((_, bytes) => library?.write(bytes) ?? true, true);
      held = [];
      if (ready) done();
      else library.once('drain', () => done());
    },
    flush(done) {
      try {
        check.end();
      } catch (error) {
        done(error as Error);
        return;
      }
      library?.once('end', () => done());
      library?.end();
    },
    destroy(error, done) {
      library?.destroy();
      done(error);
    },
  });
  return stage;
}

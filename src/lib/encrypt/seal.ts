/**
 * Sealing and opening a stream: messages of the AWS Encryption SDK, format version 2, algorithm suite 0x0478, 1 MiB
 * frames. The library authenticates a frame before it releases any of its plaintext; `FrameCheck` adds what it leaves out.
 */

import {Duplex, Transform} from 'node:stream';
import {buildDecrypt} from '@aws-crypto/decrypt-node';
import {buildEncrypt} from '@aws-crypto/encrypt-node';
import {AlgorithmSuiteIdentifier, CommitmentPolicy} from '@aws-crypto/material-management-node';
import {RawAesKeyringNode, RawAesWrappingSuiteIdentifier} from '@aws-crypto/raw-aes-keyring-node';
import {messageOf} from '../errors.ts';
import {checkHeader, contextRecord, FrameCheck, integrityError, keyNamespace, type SealContext} from './frame-check.ts';
import type {EncryptionKey} from './keys.ts';

export {checkHeader, type SealContext} from './frame-check.ts';

/** Plaintext bytes in a frame. At the library's default of 4 KiB it is twelve times slower (docs/PERFORMANCE.md). */
export const frameBytes = 1 << 20;

const {encryptStream} = buildEncrypt(CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT);
const {decryptUnsignedMessageStream} = buildDecrypt({
  commitmentPolicy: CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT,
  maxEncryptedDataKeys: 16,
});

function keyringOf(key: EncryptionKey): RawAesKeyringNode {
  return new RawAesKeyringNode({
    keyNamespace,
    keyName: key.fingerprint,
    wrappingSuite: RawAesWrappingSuiteIdentifier.AES256_GCM_IV12_TAG16_NO_PADDING,
    // The library wipes the array it is given, and wants one of its own, not a view of a pool.
    unencryptedMasterKey: new Uint8Array(key.bytes()),
  });
}

/** A fresh stage that seals what flows through it. */
export function seal(key: EncryptionKey, context: SealContext): Duplex {
  return undestroyed(
    encryptStream(keyringOf(key), {
      suiteId: AlgorithmSuiteIdentifier.ALG_AES256_GCM_IV12_TAG16_HKDF_SHA512_COMMIT_KEY,
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
 * @throws (the stream) BackupError WRONG_KEY or DECRYPTION_FAILED
 */
export function open(keys: readonly EncryptionKey[], expected: SealContext): Transform {
  let library: Duplex | undefined;
  const check = new FrameCheck(expected.objectKey, (header) => {
    checkHeader(header, keys, expected);
    const key = keys.find(({fingerprint}) => header.wrappedKeys.some(({name}) => name === fingerprint));
    if (key) library = startLibrary(key);
  });
  /** What came before the header was complete. */
  let held: Buffer[] = [];

  function startLibrary(key: EncryptionKey): Duplex {
    const stream: Duplex = decryptUnsignedMessageStream(keyringOf(key));
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
